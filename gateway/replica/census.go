package replica

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/sallyport/sallyport/election/boottime"
	"github.com/sallyport/sallyport/flows/conntrack"
	"github.com/sallyport/sallyport/gateway"
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
	routes      map[uint16]routeUse // by the route's number
}

// routeUse is what the connections of one route use.
type routeUse struct {
	connections int
	fullest     *snat.PortUse // the VIP's ports towards the route's destination that has most of them; nil: none has any
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
	type flow struct {
		route uint16
		vip   netip.Addr
		to    snat.Destination
	}
	flows := map[flow]int{}
	_, err := conntrack.Dump(conntrack.IPv4, conntrack.Mark{}, func(e *conntrack.Entry) bool {
		if e.Zone == c.snat.Zone {
			to := snat.Destination{Addr: e.Reply.Src, Port: e.Reply.SrcPort, Protocol: e.Reply.Protocol}
			connections[e.Reply.Dst]++
			ports.Add(e.Reply.Dst, to, e.Reply.DstPort)
			flows[flow{routeOf(e.Mark), e.Reply.Dst, to}]++
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
	routes := map[uint16]routeUse{}
	for f, n := range flows {
		r := routes[f.route]
		r.connections += n
		if use, some := ports.Towards(f.vip, f.to); some && (r.fullest == nil || use.Compare(*r.fullest) < 0) {
			r.fullest = &use
		}
		routes[f.route] = r
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.connections, c.routes, c.ports = connections, routes, c.trend.Note(now, uses)
	return nil
}

// describe adds what was counted last to the VIPs and routes of a status, the latter in
// the order of the plan's.
func (c *census) describe(vips []host.VIP, routes []host.Route, planned []gateway.PlannedRoute) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, r := range planned {
		use := c.routes[r.ID]
		routes[i].Connections = use.connections
		if use.fullest != nil {
			routes[i].Fullest = host.NewPorts(*use.fullest)
		}
	}
	for i := range vips {
		vips[i].Connections = c.connections[vips[i].VIP]
		for _, f := range c.ports[vips[i].VIP] {
			vips[i].Ports = append(vips[i].Ports, host.NewPortUse(f))
		}
	}
}
