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
// never our own replicas': their claims begin when our lease has ended.
type conflicts struct {
	host  *layer2.Host
	vips  []vip.VIP
	holds func(addr netip.Addr) bool
	log   *slog.Logger

	mu   sync.Mutex
	seen map[string]layer2.Conflict
	// counts by VIP
	counts map[netip.Addr]uint64
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
	if !c.holds(found.Addr) {
		return
	}
	c.log.Error("another host claims the VIP", "address", found.Addr, "mac", found.MAC.String(), "interface", found.Interface)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen[found.Addr.String()+" "+found.MAC.String()] = found
	for _, v := range c.vips {
		if slices.Contains(v.Addrs(), found.Addr) {
			c.counts[v.Addr]++
		}
	}
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
