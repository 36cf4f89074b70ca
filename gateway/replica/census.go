package replica

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/sallyport/sallyport/election/boottime"
	"github.com/sallyport/sallyport/flows/conntrack"
	"github.com/sallyport/sallyport/gateway/host"
	"github.com/sallyport/sallyport/snat"
)

const (
	// counting is how often connections are counted: it reads the whole table.
	counting = 15 * time.Second
	// worst is how many destinations of each VIP are told of.
	worst = 10
)

// census counts the connections and the source ports of the VIPs, whether this
// replica holds them or only keeps a copy: a forecast outlives a failover.
type census struct {
	snat snat.Config
	log  *slog.Logger

	mu          sync.Mutex
	trend       snat.Trend
	connections map[netip.Addr]int
	ports       map[netip.Addr][]snat.Forecast
}

func newCensus(cfg snat.Config, log *slog.Logger) *census { return &census{snat: cfg, log: log} }

// run counts until the context ends.
func (c *census) run(ctx context.Context) {
	ticker := time.NewTicker(counting)
	defer ticker.Stop()
	for {
		if err := c.count(boottime.Now()); err != nil {
			c.log.Warn("connections are not counted", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (c *census) count(now time.Duration) error {
	connections, ports := map[netip.Addr]int{}, snat.NewPortCount(c.snat)
	_, err := conntrack.Dump(conntrack.IPv4, conntrack.Mark{}, func(e *conntrack.Entry) bool {
		if e.Zone == c.snat.Zone {
			connections[e.Reply.Dst]++
			ports.Add(e.Reply.Dst, snat.Destination{Addr: e.Reply.Src, Port: e.Reply.SrcPort, Protocol: e.Reply.Protocol}, e.Reply.DstPort)
		}
		return false
	})
	if err != nil {
		return err
	}
	uses := map[netip.Addr][]snat.PortUse{}
	for vip := range connections {
		uses[vip] = ports.Worst(vip, worst)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.connections, c.ports = connections, c.trend.Note(now, uses)
	return nil
}

// describe adds what was counted last to the VIPs of a status.
func (c *census) describe(vips []host.VIP) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range vips {
		vips[i].Connections = c.connections[vips[i].VIP]
		for _, f := range c.ports[vips[i].VIP] {
			vips[i].Ports = append(vips[i].Ports, host.NewPortUse(f))
		}
	}
}
