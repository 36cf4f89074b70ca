package replica

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sallyport/sallyport/gateway"
	"github.com/sallyport/sallyport/vip"
	"github.com/sallyport/sallyport/vip/layer2"
)

// conflictFor is how long a claim of another host is named after it was last seen.
const conflictFor = time.Minute

// conflicts are claims of other hosts to a VIP while this replica holds it. They are
// never our own replicas': their claims begin when our lease has ended, and what they
// said before is not counted.
type conflicts struct {
	host *layer2.Host
	vips []vip.VIP
	// since tells since when this replica holds the VIP of an address, if it does.
	since func(addr netip.Addr) (since time.Duration, held bool)
	now   func() time.Duration // CLOCK_BOOTTIME
	// defend announces the VIP.
	defend func(v vip.VIP)
	log    *slog.Logger

	mu   sync.Mutex
	seen map[string]layer2.Conflict
	// counts by VIP
	counts   map[netip.Addr]uint64
	defences map[netip.Addr]*vip.Defence
}

// run listens on the VIPs' interfaces until the context ends.
func (c *conflicts) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, v := range c.vips {
		ears, err := c.host.ListenConflicts(v)
		if err != nil {
			// Everything else works without.
			c.log.Error("nobody watches for other owners of the VIP", "vip", v.Addr, "error", err)
			continue
		}
		g.Go(func() error { return ears.Run(ctx, c.note) })
	}
	return g.Wait()
}

// probe asks the segment whether another host answers for a VIP just claimed.
func (c *conflicts) probe(ctx context.Context, v vip.VIP) {
	found, answered, err := c.host.Probe(ctx, v, time.Second)
	if err != nil {
		c.log.Debug("probe for another owner", "vip", v.Addr, "error", err)
	} else if answered {
		c.note(found)
	}
}

func (c *conflicts) note(found layer2.Conflict) {
	since, held := c.since(found.Addr)
	if !held {
		return
	}
	for _, v := range c.vips {
		if !slices.Contains(v.Addrs(), found.Addr) {
			continue
		}
		foreign, announce := c.judge(v, found, since)
		if foreign {
			c.log.Error("another host claims the VIP", "address", found.Addr, "mac", found.MAC.String(), "interface", found.Interface, "announced", announce)
		}
		if announce {
			c.defend(v)
		}
	}
}

func (c *conflicts) judge(v vip.VIP, found layer2.Conflict, since time.Duration) (foreign, announce bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.defences[v.Addr] == nil {
		c.defences[v.Addr] = &vip.Defence{}
	}
	foreign, announce = c.defences[v.Addr].Heard(c.now(), since, found.Answered)
	if foreign {
		c.seen[found.Addr.String()+" "+found.MAC.String()] = found
		c.counts[v.Addr]++
	}
	return foreign, announce
}

// count is how often another host was seen to claim the VIP.
func (c *conflicts) count(vip netip.Addr) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.counts[vip]
}

func (c *conflicts) problems() []gateway.Problem {
	c.mu.Lock()
	defer c.mu.Unlock()
	var problems []gateway.Problem
	for _, key := range slices.Sorted(maps.Keys(c.seen)) {
		found := c.seen[key]
		if time.Since(found.At) > conflictFor {
			delete(c.seen, key)
			continue
		}
		problems = append(problems, gateway.Problem{
			Object: vipObject(found.Addr), Reason: gateway.Duplicate,
			Message: fmt.Sprintf("the host with MAC %s on %s claims it as well, and packets may go there: take the address from that host",
				found.MAC, found.Interface),
		})
	}
	return problems
}

func vipObject(addr netip.Addr) string { return "VIP " + addr.String() }
