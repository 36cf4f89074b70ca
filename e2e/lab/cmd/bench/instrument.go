package main

import (
	"fmt"
	"net/netip"
	"net/rpc"
	"net/rpc/jsonrpc"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/e2e/lab"
)

// portsAbove is by how much the ports of the probe's partner are higher than those of the
// lab's own, which load has to itself.
const portsAbove = 100

// Instrument is the probe's own side.
type Instrument struct {
	lab *lab.Lab

	mu      sync.Mutex
	clients []instrumented
}

// instrumented is any client of a lab.
type instrumented interface {
	Since(time.Time) lab.Timeline
	Stop() lab.Timeline
}

// Begin starts a client.
func (i *Instrument) Begin(o Order, b *Begun) (err error) {
	var c instrumented
	switch o.Kind {
	case "echo":
		c, err = i.lab.StartEcho(o.From, lab.PartnerAddr, o.Every)
	case "ask":
		c, err = i.lab.StartStream(o.From, lab.PartnerAddr, o.Every)
	case "listen":
		c, err = i.lab.StartListening(o.From, lab.PartnerAddr)
	case "connect":
		c, err = i.lab.StartConnects(o.From, lab.PartnerAddr, o.Every)
	default:
		err = fmt.Errorf("no client of the kind %q", o.Kind)
	}
	if err != nil {
		return err
	}
	if s, ok := c.(interface{ Local() netip.AddrPort }); ok {
		b.Local = s.Local()
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	b.Number = len(i.clients)
	i.clients = append(i.clients, c)
	return nil
}

// Report tells what a client saw.
func (i *Instrument) Report(l Look, s *Seen) error {
	i.mu.Lock()
	if l.Number < 0 || l.Number >= len(i.clients) {
		i.mu.Unlock()
		return fmt.Errorf("no client %d", l.Number)
	}
	c := i.clients[l.Number]
	i.mu.Unlock()
	if stream, ok := c.(*lab.Stream); ok {
		if err := stream.Broken(); err != nil { // before it is stopped by us
			s.Broken = err.Error()
		}
	}
	if l.Stop {
		s.Timeline = c.Stop()
	} else {
		s.Timeline = c.Since(l.From)
	}
	return nil
}

func instrumentCommand() *cobra.Command {
	return &cobra.Command{
		Use: "instrument PREFIX", Short: "Ask and answer in real time in a lab that stands", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := inRealTime(); err != nil {
				return err
			}
			// Each pod's clients sleep on threads of their own, which need a turn of Go's when they wake.
			runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + 8)
			l, err := lab.Attach(args[0])
			if err != nil {
				return err
			}
			defer l.Close()
			if err := l.ServeBeside(portsAbove); err != nil {
				return err
			}
			s := rpc.NewServer()
			if err := s.Register(&Instrument{lab: l}); err != nil {
				return err
			}
			s.ServeCodec(jsonrpc.NewServerCodec(pipe{os.Stdin, os.Stdout})) // until the other side hangs up
			return nil
		},
	}
}

// foremost is the priority of the bench's instruments: nothing of a program's comes before it.
var foremost = &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 99}

// inRealTime puts all threads of this process there; those to come inherit it.
func inRealTime() error {
	for changed := true; changed; {
		changed = false
		tasks, err := filepath.Glob("/proc/self/task/*")
		if err != nil {
			return err
		}
		for _, t := range tasks {
			tid, _ := strconv.Atoi(filepath.Base(t))
			if have, err := unix.SchedGetAttr(tid, 0); err != nil || have.Policy == foremost.Policy {
				continue
			}
			if err := unix.SchedSetAttr(tid, foremost, 0); err != nil {
				return fmt.Errorf("real time for what measures: %w", err)
			}
			changed = true
		}
	}
	return nil
}
