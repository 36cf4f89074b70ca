package replica

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/election/priority"
	"github.com/sallyport/sallyport/flows/conntrack"
	"github.com/sallyport/sallyport/gateway"
	"github.com/sallyport/sallyport/gateway/host"
	"github.com/sallyport/sallyport/netfilter"
	"github.com/sallyport/sallyport/snat"
	"github.com/sallyport/sallyport/steer/tcx"
	"github.com/sallyport/sallyport/vip"
	"github.com/sallyport/sallyport/vip/layer2"
)

// fastPath carries established connections beside netfilter. Nothing else depends on it: what it cannot
// do is a problem, and their packets take the slow path.
type fastPath struct {
	on    bool
	node  string
	local netip.Addr
	cfg   snat.Config
	vips  []vip.VIP // that can be held here
	marks map[netip.Addr]uint32
	fence *layer2.Fence
	log   *slog.Logger

	following sync.WaitGroup
	looked    time.Time // when the interfaces were

	mu     sync.Mutex
	path   *tcx.Gateway // nil: off, or not possible here
	plan   gateway.Plan
	routes map[uint16]int          // counters, by route
	before map[uint16][2]tcx.Count // of paths before this one
	failed error
	marred error // of connections that could not be let go
}

// look is how long the interfaces of a host that stays as it is are not listed.
const look = 10 * time.Second

func newFastPath(cfg Config, vips []vip.VIP, fence *layer2.Fence, log *slog.Logger) (*fastPath, error) {
	slots, err := cfg.SNAT.Tunnel.Marks.Slots(addresses(cfg.VIPs))
	if err != nil {
		return nil, err
	}
	f := &fastPath{
		on: cfg.FastPath, node: cfg.NodeName, local: cfg.NodeIP, cfg: cfg.SNAT, vips: vips, marks: map[netip.Addr]uint32{}, fence: fence, log: log,
		routes: map[uint16]int{}, before: map[uint16][2]tcx.Count{},
	}
	for addr, slot := range slots {
		f.marks[addr] = cfg.SNAT.Tunnel.Marks.Value(slot)
	}
	return f, nil
}

// apply comes after the rules. What a view ends that tracking does not forget, it ends here.
func (f *fastPath) apply(plan gateway.Plan, now time.Time) {
	if !f.on {
		return
	}
	f.mu.Lock()
	less := !slices.Equal(f.plan.Peers, plan.Peers) || !maps.Equal(audited(f.plan), audited(plan))
	f.plan = plan
	f.mu.Unlock()
	var err error
	if f.path == nil || f.failed != nil || now.Sub(f.looked) >= look {
		err = f.open()
		f.looked = now
	}
	if err == nil && less {
		err = f.end(func(netip.Addr, uint16) bool { return false })
	}
	f.note(&f.failed, err)
}

func audited(plan gateway.Plan) map[uint16]bool {
	ids := map[uint16]bool{}
	for _, r := range plan.Routes {
		if r.Audit {
			ids[r.ID] = true
		}
	}
	return ids
}

// open the path anew when the interfaces are others.
func (f *fastPath) open() error {
	front, err := tcx.FindFront(f.cfg.Tunnel, f.local, f.vips)
	if err == nil && f.path != nil && f.path.Front().Equal(front) {
		return nil
	}
	f.close()
	if err != nil {
		return err
	}
	path, err := tcx.OpenGateway(front)
	if err != nil {
		return err
	}
	f.mu.Lock()
	f.path = path
	f.mu.Unlock()
	if err := f.fence.SetPass(path); err != nil {
		return err
	}
	f.following.Go(func() { priority.Ordinary(func() { f.follow(path) }) })
	f.log.Info("established connections go beside netfilter", "vips", len(front.VIPs))
	return nil
}

// follow lets connections go that are worth it.
func (f *fastPath) follow(p *tcx.Gateway) {
	for {
		seen, err := p.Long()
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err == nil {
			err = f.let(p, seen)
		}
		if errors.Is(err, fs.ErrNotExist) {
			err = nil // it ended meanwhile
		}
		f.note(&f.marred, err)
	}
}

// let a connection go if tracking has it, and a pod of another node and a route that is not audited: what
// is audited is counted by the kernel's entry, which does not see what goes beside it.
func (f *fastPath) let(p *tcx.Gateway, seen tcx.Seen) error {
	t := conntrack.Tuple{Src: seen.Partner.Addr(), SrcPort: seen.Partner.Port(), Dst: seen.VIP.Addr(), DstPort: seen.VIP.Port(), Protocol: seen.Protocol}
	e, err := conntrack.Find(t, f.cfg.Zone)
	if err != nil {
		return err
	}
	if e.Original.Dst != t.Src || e.Original.DstPort != t.SrcPort || e.Mark&f.cfg.Tunnel.Marks.Mask != f.marks[t.Dst] ||
		t.Protocol == unix.IPPROTO_TCP && e.TCPState != conntrack.TCPEstablished {
		return nil
	}
	f.mu.Lock()
	node, ok := f.nodeOf(e.Original.Src)
	counter, counts := f.counter(routeOf(e.Mark))
	f.mu.Unlock()
	if !ok || node == f.local || !counts {
		return nil
	}
	if t.Protocol == unix.IPPROTO_TCP { // tracking must not judge the windows of what it does not see
		if err := conntrack.Update(conntrack.Entry{Original: e.Original, Zone: e.Zone}); err != nil {
			return err
		}
	}
	return p.Let(tcx.Pair{
		Protocol: t.Protocol, Pod: netip.AddrPortFrom(e.Original.Src, e.Original.SrcPort), VIP: seen.VIP, Partner: seen.Partner,
		Node: node, Interface: seen.Interface, Counter: counter,
	})
}

// nodeOf gives the tunnel's end of a pod's node.
func (f *fastPath) nodeOf(pod netip.Addr) (netip.Addr, bool) {
	i, found := slices.BinarySearchFunc(f.plan.Members, pod, func(m gateway.Member, a netip.Addr) int { return m.Addr.Compare(a) })
	if !found {
		return netip.Addr{}, false
	}
	return f.plan.Members[i].Node, true
}

// counter of a route; none: its connections do not go beside netfilter.
func (f *fastPath) counter(id uint16) (int, bool) {
	i := slices.IndexFunc(f.plan.Routes, func(r gateway.PlannedRoute) bool { return r.ID == id })
	if i < 0 || f.plan.Routes[i].Audit {
		return 0, false
	}
	n, has := f.routes[id]
	if !has && len(f.routes) < tcx.Counters {
		n, has = len(f.routes), true
		f.routes[id] = n
	}
	return n, has
}

// end the connections that are over, those of routes that are audited or gone, and those of nodes that are
// none of the cluster any more.
func (f *fastPath) end(over func(pod netip.Addr, route uint16) bool) error {
	if f.path == nil {
		return nil
	}
	f.mu.Lock()
	ids := make(map[int]uint16, len(f.routes))
	for id, n := range f.routes {
		if _, counts := f.counter(id); counts {
			ids[n] = id
		}
	}
	peers := f.plan.Peers
	f.mu.Unlock()
	return f.path.End(func(c tcx.Known) bool {
		id, has := ids[c.Counter]
		_, is := slices.BinarySearchFunc(peers, c.Node, netip.Addr.Compare)
		return !has || !is || over(c.Pod, id)
	})
}

func (f *fastPath) note(as *error, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil && (*as == nil || (*as).Error() != err.Error()) {
		f.log.Warn("established connections take the slow path", "error", err)
	}
	*as = err
}

// counts of a route, out of pods and into them.
func (f *fastPath) counts(id uint16) (c [2]tcx.Count, err error) {
	c = f.before[id]
	if n, has := f.routes[id]; has && f.path != nil {
		var out, in tcx.Count
		if out, in, err = f.path.Counts(n); err == nil {
			c = [2]tcx.Count{plus(c[0], out), plus(c[1], in)}
		}
	}
	return c, err
}

func plus(a, b tcx.Count) tcx.Count {
	return tcx.Count{Packets: a.Packets + b.Packets, Bytes: a.Bytes + b.Bytes}
}

// describe adds what went beside netfilter to what passed it.
func (f *fastPath) describe(s *host.Status, routes []gateway.PlannedRoute) {
	if !f.on {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	err := errors.Join(f.failed, f.marred)
	out := &host.FastPath{}
	of := map[uint16]*host.Route{}
	for i, r := range routes {
		of[r.ID] = &s.Routes[i]
	}
	ids := maps.Clone(f.routes)
	for id := range f.before {
		ids[id] = 0
	}
	for id := range ids {
		c, countErr := f.counts(id)
		err = errors.Join(err, countErr)
		out.PacketsOut, out.BytesOut, out.PacketsIn, out.BytesIn = out.PacketsOut+c[0].Packets, out.BytesOut+c[0].Bytes, out.PacketsIn+c[1].Packets, out.BytesIn+c[1].Bytes
		if r := of[id]; r != nil {
			r.Sent = netfilter.Counts{Packets: r.Sent.Packets + c[0].Packets + c[1].Packets, Bytes: r.Sent.Bytes + c[0].Bytes + c[1].Bytes}
		}
	}
	if f.path != nil {
		flows, flowsErr := f.path.Flows()
		err = errors.Join(err, flowsErr)
		out.On, out.Flows = f.failed == nil, flows
	}
	s.FastPath = out
	if err != nil {
		s.Problems = append(s.Problems, gateway.Problem{
			Object: "Node " + f.node, Field: "--fast-path", Reason: gateway.Misconfigured,
			Message: fmt.Sprintf("%s; until then, or without --fast-path, all packets pass netfilter", err),
		})
	}
}

func (f *fastPath) close() {
	f.mu.Lock()
	path := f.path
	if path != nil {
		for id := range f.routes {
			if c, err := f.counts(id); err == nil {
				f.before[id] = c
			}
		}
	}
	f.path = nil
	f.routes = map[uint16]int{}
	f.mu.Unlock()
	if path != nil {
		_ = f.fence.SetPass(nil)
		_ = path.Close() // the kernel does it at the end of the process in any case
	}
	f.following.Wait()
}
