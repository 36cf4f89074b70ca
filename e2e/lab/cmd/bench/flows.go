package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/e2e/lab"
	"github.com/sallyport/sallyport/flows"
	"github.com/sallyport/sallyport/flows/conntrack"
	"github.com/sallyport/sallyport/gateway/host"
	"github.com/sallyport/sallyport/tunnel"
)

const (
	flowRate   = 10000 // new connections a second
	flowTick   = 10 * time.Millisecond
	flowLives  = time.Second // of each of those
	flowCrowd  = 100000
	flowAll    = 2 * flowCrowd
	flowTrials = 3 // of what takes long; fewer when fewer are asked for
	flowTime   = 10 * time.Second
)

// replicated are the figures of the section.
type replicated struct {
	lags                          trials // seconds, of single connections
	rate                          float64
	holderCPU, standbyCPU         float64 // processors' share at that rate
	holderMB, standbyMB           float64 // resident, for a crowd more
	holderSeconds, standbySeconds float64 // of processor time, for a crowd more
	kernelBytes                   float64 // of one entry in the kernel, by its slab
	catchUp, catchUpCPU           trials

	shortHolder, shortStandby, shortPath trials // seconds of processor time, for shortOnes by packets
	overruns, snapshots, refused         uint64
	terms                                uint64 // how often an election was begun meanwhile
}

// flows measures the replication by putting connections into the holder's kernel
// as the packet path does, for which this machine is too slow: the kernel's events are
// the same.
func (b *bench) flows(ctx context.Context) (_ string, err error) {
	w, err := b.up("f", lab.Options{})
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w\n%s", err, w.LogTails(10))
		}
		err = errors.Join(err, w.Close())
	}()
	if err := w.start(); err != nil {
		return "", err
	}
	holder, err := w.holder()
	if err != nil {
		return "", err
	}
	c, err := newCrowd(w, holder)
	if err != nil {
		return "", err
	}
	before, err := w.status(lab.Gateway, holder)
	if err != nil {
		return "", err
	}
	var r replicated
	for _, step := range []struct {
		name    string
		measure func(*bench, context.Context, *crowd, *replicated) error
	}{{"short", (*bench).short}, {"stream", (*bench).stream}, {"hoard", (*bench).hoard}, {"join", (*bench).join}} {
		if !b.wants(step.name) {
			continue
		}
		if err := step.measure(b, ctx, c, &r); err != nil {
			return "", err
		}
	}
	s, err := w.status(lab.Gateway, holder)
	if err != nil {
		return "", err
	}
	r.terms = s.VIPs[0].Term - before.VIPs[0].Term
	progress("flows: %d elections meanwhile", r.terms)
	r.overruns, r.snapshots = s.VIPs[0].Replication.Overruns, s.VIPs[0].Replication.Snapshots
	return flowsText(r), nil
}

// crowd puts connections into a holder's kernel.
type crowd struct {
	w       *world
	scope   conntrack.Scope
	holder  int
	standby int
}

func newCrowd(w *world, holder int) (*crowd, error) {
	vip := w.Options.VIPs[0]
	marks := tunnel.DefaultConfig().Marks
	slots, err := marks.Slots(w.Options.VIPs)
	if err != nil {
		return nil, err
	}
	return &crowd{w: w, holder: holder, standby: w.Others(holder)[0], scope: conntrack.Scope{
		VIP: vip, Zone: 51, Mark: conntrack.Mark{Value: marks.Value(slots[vip]), Mask: marks.Mask},
	}}, nil
}

// crowdPorts are enough for a crowd towards a few partners, and clear of NodePorts.
const crowdPorts = 28000

func crowdFlow(n int) flows.Flow {
	port := uint16(1500 + n%crowdPorts)
	return flows.Flow{
		Key: flows.Key{
			Src: netip.AddrFrom4([4]byte{10, 250, byte(n >> 8), byte(n)}), Dst: netip.AddrFrom4([4]byte{198, 51, 100, byte(1 + n/crowdPorts)}),
			SrcPort: port, DstPort: 443, Protocol: unix.IPPROTO_TCP,
		},
		Port: port, State: conntrack.TCPEstablished, Status: uint8(conntrack.SeenReply | conntrack.Assured),
	}
}

// change makes changes in the kernel of a node.
func (c *crowd) change(j int, changes []flows.Change) error {
	return c.inside(j, func() error { return lab.Track(c.scope, changes) })
}

func (c *crowd) inside(j int, do func() error) error {
	ns, err := c.w.Namespace(lab.NodeName(j))
	if err != nil {
		return err
	}
	return ns.Do(do)
}

func puts(op flows.Op, first, n int) []flows.Change {
	changes := make([]flows.Change, n)
	for i := range changes {
		changes[i] = flows.Change{Op: op, Flow: crowdFlow(first + i)}
	}
	return changes
}

// inStep waits until the holder says that every standby has everything. It asks
// seldom: what a status costs is not to be measured.
func (c *crowd) inStep(ctx context.Context) error {
	for until := time.Now().Add(4 * patience); ; {
		err := c.lagging()
		if err == nil || time.Now().After(until) {
			return err
		}
		if err := wait(ctx, 250*time.Millisecond); err != nil {
			return err
		}
	}
}

func (c *crowd) lagging() error {
	s, err := c.w.status(lab.Gateway, c.holder)
	if err != nil {
		return err
	}
	if len(s.VIPs) == 0 || s.VIPs[0].Replication == nil || !s.VIPs[0].Held {
		return fmt.Errorf("n%d does not hold", c.holder)
	}
	standbys := s.VIPs[0].Replication.Standbys
	if len(standbys) != len(c.w.Options.GatewayNodes)-1 {
		return fmt.Errorf("%d standbys follow", len(standbys))
	}
	for _, standby := range standbys {
		if !standby.InStep || standby.LagSeconds > 0 {
			return fmt.Errorf("%s is not in step", standby.Name)
		}
	}
	return nil
}

// processor is the time that a gateway has run for.
func (c *crowd) processor(j int) (float64, error) {
	p, err := c.w.Program(lab.Gateway, j)
	if err != nil {
		return 0, err
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Pid))
	if err != nil {
		return 0, fmt.Errorf("read the processor time of the gateway on n%d: %w", j, err)
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	f := strings.Fields(rest)
	if len(f) < 13 {
		return 0, fmt.Errorf("the processor time of the gateway on n%d cannot be read", j)
	}
	user, _ := strconv.ParseFloat(f[11], 64)
	system, _ := strconv.ParseFloat(f[12], 64)
	return (user + system) / 100, nil // USER_HZ
}

// usage of the holder's and a standby's gateway: processor seconds and MB resident.
type usage struct{ holderCPU, standbyCPU, holderMB, standbyMB float64 }

func (c *crowd) usage() (u usage, err error) {
	for j, to := range map[int][2]*float64{c.holder: {&u.holderCPU, &u.holderMB}, c.standby: {&u.standbyCPU, &u.standbyMB}} {
		if *to[0], err = c.processor(j); err != nil {
			return u, err
		}
		p, err := c.w.Program(lab.Gateway, j)
		if err != nil {
			return u, err
		}
		if *to[1], _, err = memoryOf(p.Pid); err != nil {
			return u, err
		}
	}
	return u, nil
}

// refusedBy counts what kernels did not take: a full table spoils the figures.
func refusedBy(s host.Status) (n uint64) {
	for _, v := range s.VIPs {
		if v.Replication != nil {
			n += v.Replication.Refused
		}
	}
	return n
}
