package host

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/flows/conntrack"
	"github.com/sallyport/sallyport/gateway"
	"github.com/sallyport/sallyport/netfilter"
	"github.com/sallyport/sallyport/netfilter/iptables"
	"github.com/sallyport/sallyport/netfilter/nft"
	"github.com/sallyport/sallyport/tunnel"
	"github.com/sallyport/sallyport/tunnel/vxlan"
)

// clashesEvery is how often clashes are looked for after the start. It takes a
// listing of everybody's rules.
const clashesEvery = 5 * time.Minute

// Clashes names what other programs on this host use of what is ours: ports, routing
// tables, bits of the mark, the connection-tracking zone.
type Clashes struct {
	marks  tunnel.Marks
	zone   uint16
	tunnel *vxlan.Applier
	log    *slog.Logger

	once    sync.Once // all connections of the host are too many to list again and again
	strange []gateway.Problem

	mu       sync.Mutex
	problems []gateway.Problem
}

// NewClashes looks at nothing yet. Zone is 0 for a program that has none.
func NewClashes(marks tunnel.Marks, zone uint16, tunnel *vxlan.Applier, log *slog.Logger) *Clashes {
	return &Clashes{marks: marks, zone: zone, tunnel: tunnel, log: log}
}

// Run looks at once, and then from time to time until the context ends.
func (c *Clashes) Run(ctx context.Context) error {
	ticker := time.NewTicker(clashesEvery)
	defer ticker.Stop()
	for {
		c.look(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// Problems are the clashes found last.
func (c *Clashes) Problems() []gateway.Problem {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.problems)
}

func (c *Clashes) look(ctx context.Context) {
	problems, errTunnel := c.tunnel.Clashes()
	modern, errModern := nft.Others()
	legacy, errLegacy := iptables.LegacyOthers(ctx)
	for _, w := range slices.Concat(modern, legacy) {
		problems = append(problems, c.judge(w)...)
	}
	var errZone error
	c.once.Do(func() { c.strange, errZone = c.strangers() })
	problems = append(problems, c.strange...)
	if err := errors.Join(errTunnel, errModern, errLegacy, errZone); err != nil && ctx.Err() == nil {
		c.log.Warn("not all clashes with other programs can be seen", "error", err)
	}
	c.mu.Lock()
	before := c.problems
	c.problems = problems
	c.mu.Unlock()
	for _, p := range problems {
		if !slices.Contains(before, p) {
			c.log.Warn("another program uses what is ours", "object", p.Object, "flag", p.Field, "clash", p.Message)
		}
	}
}

// judge compares what a chain of others writes with what is ours.
func (c *Clashes) judge(w netfilter.Writes) []gateway.Problem {
	var problems []gateway.Problem
	if bits := w.Mark & c.marks.Mask; bits != 0 {
		problems = append(problems, gateway.Problem{
			Object: w.Where, Field: "--mark-mask", Reason: gateway.Misconfigured,
			Message: fmt.Sprintf("its rules write bits %#x of the mark, of which %#x are ours: have that program use others, or choose others, the same for gateway and agent of a host", w.Mark, bits),
		})
	}
	if c.zone != 0 && slices.Contains(w.Zones, c.zone) {
		problems = append(problems, gateway.Problem{
			Object: w.Where, Field: "--conntrack-zone", Reason: gateway.Misconfigured,
			Message: fmt.Sprintf("its rules put packets in connection-tracking zone %d, which is ours: choose another, the same on all gateways", c.zone),
		})
	}
	return problems
}

// strangers are connections in our zone that are not ours: Open vSwitch puts them
// there without a rule that could be seen. Ours carry a VIP's mark, all but pings to
// the VIP itself.
func (c *Clashes) strangers() ([]gateway.Problem, error) {
	if c.zone == 0 {
		return nil, nil
	}
	entries, err := conntrack.Dump(conntrack.IPv4, conntrack.Mark{Mask: c.marks.Mask}, func(e *conntrack.Entry) bool {
		return e.Zone == c.zone && e.Original.Protocol != unix.IPPROTO_ICMP
	})
	if err != nil || len(entries) == 0 {
		return nil, err
	}
	return []gateway.Problem{{
		Object: "connection tracking", Field: "--conntrack-zone", Reason: gateway.Misconfigured,
		Message: fmt.Sprintf("zone %d had %d connections of another program, such as Open vSwitch, at the start: choose another, the same on all gateways", c.zone, len(entries)),
	}}, nil
}
