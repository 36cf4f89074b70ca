package main

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/rpc"
	"net/rpc/jsonrpc"
	"os"
	"os/exec"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/e2e/lab"
)

// pace is what a probe's clients ask at, but for those of which a section says another.
const pace = 5 * time.Millisecond

// instrument tells in the document how.
const instrument = `The pods' clients and the partner that answers them are one process of the highest priority in real time (SCHED_FIFO 99), so that what they would
wait for a processor themselves is not taken for a stall. It does nothing else: whatever makes load, asks for a move or strikes is another process of ordinary priority,
and the programs that are measured run as they run elsewhere.`

// probe is the instrument that stalls are measured by: another process, before all others
// in real time, in which both the clients and their partner's servers are. What either
// would wait for a processor is no stall of the traffic. It makes no load and starts no
// program: whoever does is at its ordinary priority, elsewhere.
type probe struct {
	cmd   *exec.Cmd
	calls *rpc.Client

	mu  sync.Mutex
	err error // the first that went wrong: what was measured is worth nothing then
}

// startProbe starts the instrument of a lab that stands.
func startProbe(prefix string) (*probe, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find the program itself: %w", err)
	}
	c := exec.Command(self, "instrument", prefix)
	c.Env = append(os.Environ(), "GOGC=off", "GOMEMLIMIT=1GiB") // its own garbage collection would be seen
	c.Stderr = os.Stderr
	c.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	in, err1 := c.StdinPipe()
	out, err2 := c.StdoutPipe()
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	if err := startKept(c); err != nil {
		return nil, fmt.Errorf("start the probe: %w", err)
	}
	return &probe{cmd: c, calls: jsonrpc.NewClient(pipe{out, in})}, nil
}

// pipe is both directions of a child's standard streams.
type pipe struct {
	io.Reader
	io.WriteCloser
}

// close ends the probe and says what went wrong with it.
func (p *probe) close() error {
	if p == nil {
		return nil
	}
	return errors.Join(p.err, p.calls.Close(), p.cmd.Wait())
}

func (p *probe) call(what string, args, reply any) error {
	err := p.calls.Call("Instrument."+what, args, reply)
	if err == nil {
		return nil
	}
	err = fmt.Errorf("probe: %s: %w", what, err)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		p.err = err
	}
	return err
}

// probed is a client of a probe.
type probed struct {
	probe *probe
	begun Begun
}

func (w *world) probing(kind, from string, every time.Duration) (c *probed, err error) {
	if w.probe == nil {
		if w.probe, err = startProbe(w.Options.Prefix); err != nil {
			return nil, err
		}
	}
	c = &probed{probe: w.probe}
	return c, w.probe.call("Begin", Order{kind, from, every}, &c.begun)
}

// The kinds of clients, all towards the partner.
func (w *world) echo(from string) (*probed, error)   { return w.probing("echo", from, pace) }
func (w *world) ask(from string) (*probed, error)    { return w.probing("ask", from, pace) }
func (w *world) listen(from string) (*probed, error) { return w.probing("listen", from, 0) }
func (w *world) connect(from string, every time.Duration) (*probed, error) {
	return w.probing("connect", from, every)
}

// Local is a stream's own end.
func (c *probed) Local() netip.AddrPort { return c.begun.Local }

// Since is what was asked since a moment.
func (c *probed) Since(from time.Time) lab.Timeline { return c.report(from, false).Timeline }

// Stop ends the client and gives all it saw.
func (c *probed) Stop() lab.Timeline { return c.report(time.Time{}, true).Timeline }

// Broken is why a stream ended before it was stopped.
func (c *probed) Broken() error {
	if why := c.report(time.Now(), false).Broken; why != "" {
		return errors.New(why)
	}
	return nil
}

// report is empty when the probe is gone, which whoever closes it is told.
func (c *probed) report(from time.Time, stop bool) (r Seen) {
	_ = c.probe.call("Report", Look{c.begun.Number, from, stop}, &r)
	return r
}

// What probe and instrument say to each other.
type (
	Order struct {
		Kind, From string
		Every      time.Duration
	}
	Begun struct {
		Number int
		Local  netip.AddrPort
	}
	Look struct {
		Number int
		From   time.Time
		Stop   bool
	}
	Seen struct {
		Timeline lab.Timeline
		Broken   string
	}
)
