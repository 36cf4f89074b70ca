package probe

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sallyport/sallyport/gateway"
	"github.com/sallyport/sallyport/reflect"
	"github.com/sallyport/sallyport/trace"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var local = netip.MustParseAddr("127.0.0.1")

func ask(c Config) trace.Probe {
	c.Timeout = time.Minute
	return Run(context.Background(), c)
}

// The reflector says to each of its two protocols who asked.
func TestAReflectorSaysWhoAsked(t *testing.T) {
	s, err := reflect.Listen("127.0.0.1:0", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	for _, protocol := range []gateway.Protocol{gateway.TCP, gateway.UDP} {
		to := gateway.Packet{Dst: local, Protocol: protocol, Port: s.Addr().Port()}
		if p := ask(Config{To: to}); !p.Connected || p.Seen != local || p.Error != "" {
			t.Errorf("%s: %+v", to, p)
		}
	}
	if _, err := reflect.Listen(s.Addr().String(), slog.New(slog.DiscardHandler)); err == nil {
		t.Error("two listen on one port")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// What is shorter than the answer gets none: the next answer is to the next question.
func TestAReflectorSendsNoMoreThanItGot(t *testing.T) {
	s, err := reflect.Listen("127.0.0.1:0", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	short, err := net.Dial("udp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer short.Close()
	if _, err := short.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if p := ask(Config{To: gateway.Packet{Dst: local, Protocol: gateway.UDP, Port: s.Addr().Port()}}); !p.Connected {
		t.Fatalf("%+v", p)
	}
	// It answers in turn, so an answer to the first would have been here by now.
	_ = short.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	if n, err := short.Read(make([]byte, 100)); err == nil {
		t.Errorf("%d bytes for one", n)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestAServerThatEchoesAddresses(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"origin": "%s"}`, r.RemoteAddr)
	}))
	defer server.Close()
	defer http.DefaultClient.CloseIdleConnections()
	if p := ask(Config{EchoURL: server.URL}); !p.Connected || p.Seen != local {
		t.Errorf("%+v", p)
	}
}

func TestWhoDoesNotAnswerIsNotConnected(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := netip.MustParseAddrPort(ln.Addr().String()).Port()
	ln.Close()
	for _, protocol := range []gateway.Protocol{gateway.TCP, gateway.UDP} {
		if p := ask(Config{To: gateway.Packet{Dst: local, Protocol: protocol, Port: port}}); p.Connected || p.Error == "" {
			t.Errorf("%s: %+v", protocol, p)
		}
	}
}
