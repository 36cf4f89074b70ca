package replica

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sallyport/sallyport/election"
	"github.com/sallyport/sallyport/election/gossip"
	"github.com/sallyport/sallyport/election/priority"
	"github.com/sallyport/sallyport/flows/conntrack"
	"github.com/sallyport/sallyport/flows/stream"
	"github.com/sallyport/sallyport/gateway"
	"github.com/sallyport/sallyport/gateway/host"
	"github.com/sallyport/sallyport/snat"
	"github.com/sallyport/sallyport/vip"
)

// mirror keeps the connections of every VIP in the kernels of all replicas: of a VIP
// that this one holds it tells the others, of any other it follows the holder.
type mirror struct {
	name    string
	port    uint16
	states  func() []election.Status
	members func() []gossip.Member
	log     *slog.Logger

	at       netip.AddrPort
	ring     *stream.Ring
	server   *stream.Server
	timeouts conntrack.Timeouts
	zone     uint16
	ended    ended
	audit    *auditor // nil: nothing is recorded

	parts    []*part
	byVIP    map[netip.Addr]*part
	overruns atomic.Uint64

	listener atomic.Pointer[conntrack.Listener]
}

// newMirror starts nothing.
func newMirror(cfg Config, states func() []election.Status, members func() []gossip.Member, metrics *host.Metrics, log *slog.Logger) (*mirror, error) {
	ring, err := stream.NewRing(cfg.Gossip.Keys)
	if err != nil {
		return nil, err
	}
	timeouts, err := conntrack.ReadTimeouts()
	if err != nil {
		return nil, err
	}
	slots, err := cfg.SNAT.Tunnel.Marks.Slots(addresses(cfg.VIPs))
	if err != nil {
		return nil, err
	}
	began := time.Now()
	m := &mirror{
		name: cfg.Gossip.Name, port: cfg.FlowsPort, states: states, members: members, log: log,
		at: netip.AddrPortFrom(cfg.NodeIP, cfg.FlowsPort), ring: ring, timeouts: timeouts, zone: cfg.SNAT.Zone,
		server: stream.NewServer(ring, func() time.Duration { return time.Since(began) }, log),
		byVIP:  map[netip.Addr]*part{},
	}
	m.server.Lag = metrics.Replicates()
	if cfg.Audit != nil {
		m.audit = newAuditor(*cfg.Audit, m.zone, m.listener.Load, log)
	}
	for _, v := range cfg.VIPs {
		p := &part{
			mirror: m, kick: make(chan struct{}, 1), again: make(chan struct{}, 1), log: log.With("vip", v.Addr.String()),
			scope: conntrack.Scope{VIP: v.Addr, Zone: m.zone, Mark: conntrack.Mark{
				Value: cfg.SNAT.Tunnel.Marks.Value(slots[v.Addr]), Mask: cfg.SNAT.Tunnel.Marks.Mask,
			}},
		}
		m.parts, m.byVIP[v.Addr] = append(m.parts, p), p
	}
	return m, nil
}

func addresses(vips []vip.VIP) []netip.Addr {
	addrs := make([]netip.Addr, 0, len(vips))
	for _, v := range vips {
		addrs = append(addrs, v.Addr)
	}
	return addrs
}

// run serves until the context ends.
func (m *mirror) run(ctx context.Context) error {
	// Before anything is written: the kernel tells the end of an entry only if somebody
	// listened when it was made.
	interest := conntrack.Changes
	if m.audit != nil {
		interest = conntrack.Everything
	}
	listener, err := conntrack.Listen(m.zone, interest)
	if err != nil {
		return err
	}
	defer listener.Close()
	m.listener.Store(listener)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		priority.Ordinary(func() { err = listener.Run(ctx, m.events) })
		return err
	})
	if m.audit != nil {
		g.Go(func() error {
			m.audit.run(ctx)
			return nil
		})
	}
	g.Go(func() error { return m.server.Run(ctx, m.at) })
	for _, p := range m.parts {
		g.Go(func() error { return p.run(ctx) })
	}
	return g.Wait()
}

// events are the kernel's; it never waits for a standby.
func (m *mirror) events(batch []conntrack.Event) {
	m.audit.hear(batch)
	for i := range batch {
		ev := &batch[i]
		if ev.Kind == conntrack.New {
			continue // the audit's; where nothing is audited it is not even heard
		}
		if ev.Kind == conntrack.Lost {
			m.overruns.Add(1)
			for _, p := range m.parts {
				if f := p.feed.Load(); f != nil {
					f.Reset()
				}
			}
			continue
		}
		if p := m.byVIP[ev.Entry.Reply.Dst]; p != nil {
			if c, ok := p.scope.Change(ev); ok {
				p.news = append(p.news, c)
			}
		}
	}
	for _, p := range m.parts {
		if f := p.feed.Load(); f != nil {
			f.Add(p.news...)
		}
		p.news = p.news[:0]
	}
}

// changed says that a VIP may have another holder. It never waits.
func (m *mirror) changed() {
	for _, p := range m.parts {
		select {
		case p.kick <- struct{}{}:
		default:
		}
	}
}

// state of a VIP as the election has it now.
func (m *mirror) state(addr netip.Addr) election.Status {
	for _, s := range m.states() {
		if s.VIP == addr.String() {
			return s
		}
	}
	return election.Status{}
}

// address of a member's stream server.
func (m *mirror) address(name string) (netip.AddrPort, error) {
	for _, member := range m.members() {
		if member.Name == name && !member.Self {
			return netip.AddrPortFrom(member.Addr.Addr(), m.port), nil
		}
	}
	return netip.AddrPort{}, fmt.Errorf("the address of gateway %s is not known yet", name)
}

// turn is after how long this standby follows a new holder: all do, each in its turn.
func (m *mirror) turn(holder string) time.Duration {
	before := 0
	for _, member := range m.members() {
		if member.Name != "" && member.Name != holder && member.Name < m.name {
			before++
		}
	}
	return followSoon + time.Duration(before)*followApart
}

// lack is what keeps a standby from going on with a VIP's connections, "" for nothing.
// A nil mirror's need none.
func (m *mirror) lack(addr netip.Addr, standby string) string {
	if m == nil {
		return ""
	}
	if f := m.byVIP[addr].feed.Load(); f != nil {
		for _, s := range f.Feedback().Standbys {
			switch {
			case s.Name != standby:
			case !s.Complete:
				return "is catching up with the connections"
			case s.Lag > nearly:
				return fmt.Sprintf("lags by %v", s.Lag.Round(time.Millisecond))
			default:
				return ""
			}
		}
	}
	return "does not follow the connections"
}

// finish returns when a standby has every connection that there is: packets have
// stopped to make any.
func (m *mirror) finish(ctx context.Context, addr netip.Addr, standby string) error {
	if m == nil {
		return nil
	}
	listener, feed := m.listener.Load(), m.byVIP[addr].feed.Load()
	if listener == nil || feed == nil {
		return fmt.Errorf("the connections of %s are not told to %s", addr, standby)
	}
	if err := listener.Flush(ctx); err != nil {
		return err
	}
	return feed.Await(ctx, standby)
}

// describe adds what is known of the replication to the VIPs of a status.
func (m *mirror) describe(vips []host.VIP) {
	for i := range vips {
		if p := m.byVIP[vips[i].VIP]; p != nil {
			r := p.replication()
			r.Overruns = m.overruns.Load()
			vips[i].Replication = &r
		}
	}
}

// problems name what keeps a standby from being one.
func (m *mirror) problems() []gateway.Problem {
	var problems []gateway.Problem
	for _, p := range m.parts {
		if text := p.trouble(); text != "" {
			problems = append(problems, gateway.Problem{
				Object: "VIP " + p.scope.VIP.String(), Reason: gateway.Unreadable,
				Message: text + "; should this gateway take the VIP over, connections in which the partner speaks first would be lost",
			})
		}
	}
	return problems
}

// routeIDs of a plan, for telling later which are gone.
func routeIDs(plan gateway.Plan) map[uint16]bool {
	ids := make(map[uint16]bool, len(plan.Routes))
	for _, r := range plan.Routes {
		ids[r.ID] = true
	}
	return ids
}

// routeOf is the route that a connection was admitted by.
func routeOf(mark uint32) uint16 { return uint16((mark & snat.RouteMask) >> 16) }
