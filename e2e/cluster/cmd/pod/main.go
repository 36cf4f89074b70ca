// Pod is the program of the tests' pods. As "pause" it holds a pod's namespaces; as
// "client" it talks to the partner and tells over HTTP what it lived through; as "partner" it
// is one.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/e2e/cluster/traffic"
	"github.com/sallyport/sallyport/e2e/lab"
)

func main() {
	if len(os.Args) < 2 {
		log.Fatal("pod: say pause, client or partner")
	}
	switch os.Args[1] {
	case "pause":
		pause()
	case "client":
		if err := client(os.Args[2:]); err != nil {
			log.Fatal("pod: ", err)
		}
	case "partner":
		log.Fatal("pod: ", partner())
	default:
		log.Fatalf("pod: %s is unknown, say pause, client or partner", os.Args[1])
	}
}

// partner tells whoever connects what he is seen as. It runs outside of a cluster that
// has no lab around it.
func partner() error {
	l, err := net.Listen("tcp4", fmt.Sprintf(":%d", lab.TCPPort))
	if err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		_, _ = fmt.Fprintln(c, c.RemoteAddr())
		_ = c.Close()
	}
}

// pause reaps what a pod's dead leave to its first process.
func pause() {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGCHLD)
	for s := range signals {
		if s != unix.SIGCHLD {
			return
		}
		for {
			if pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); pid <= 0 || err != nil {
				break
			}
		}
	}
}

// client connects to the partner before it does anything else, then keeps up what it
// was told to, each at its pace.
func client(args []string) error {
	flags := flag.NewFlagSet("client", flag.ExitOnError)
	to := flags.String("to", "", "address of the partner")
	echo := flags.Duration("echo", 0, "pace of datagrams that the partner echoes, 0 for none")
	connects := flags.Duration("connects", 0, "pace of new connections, 0 for none")
	stream := flags.Duration("stream", 0, "pace of questions on one connection that lives on, 0 for none")
	if err := flags.Parse(args); err != nil {
		return err
	}
	partner, err := netip.ParseAddr(*to)
	if err != nil {
		return fmt.Errorf("--to: %w", err)
	}
	here := lab.Here()
	first := here.Connect(lab.HerePod, partner)
	text, _ := json.Marshal(first)
	fmt.Printf("first %s\n", text)

	name, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("find the pod's name: %w", err)
	}
	c := &traffic.Client{Pod: name, First: first}
	if err := c.Start(here, partner, *echo, *connects, *stream); err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /report", func(w http.ResponseWriter, r *http.Request) {
		since, _ := time.Parse(time.RFC3339Nano, r.URL.Query().Get("since"))
		_ = json.NewEncoder(w).Encode(c.Report(since))
	})
	server := &http.Server{Addr: fmt.Sprintf(":%d", traffic.Port), Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	term := make(chan os.Signal, 1)
	signal.Notify(term, unix.SIGINT, unix.SIGTERM)
	go func() {
		<-term
		_ = server.Close()
	}()
	if err := server.ListenAndServe(); err != http.ErrServerClosed {
		return err
	}
	return nil
}
