package replica

import (
	"context"
	"net"
	"net/netip"
	"slices"

	"github.com/sallyport/sallyport/election"
	"github.com/sallyport/sallyport/election/boottime"
	"github.com/sallyport/sallyport/gateway"
	"github.com/sallyport/sallyport/gateway/host"
	nf "github.com/sallyport/sallyport/netfilter"
	"github.com/sallyport/sallyport/trace"
	"github.com/sallyport/sallyport/tunnel"
	"github.com/sallyport/sallyport/vip"
)

// wanted is what the kernel is to have.
type wanted struct {
	view  gateway.Snapshot
	own   []gateway.Problem // of this gateway's node itself
	down  tunnel.Plan
	table nf.Table
}

// Trace implements host.Program.
func (r *Replica) Trace(ctx context.Context, q trace.Question, addr netip.Addr) host.TraceAnswer {
	cfg := r.cfg.SNAT.Tunnel
	out := &trace.Gateway{Name: r.cfg.Gossip.Name, Common: trace.Common{Node: r.cfg.NodeName, Live: r.view.Live(), Device: cfg.Device}}
	answer := host.TraceAnswer{Gateway: out}
	r.mu.Lock()
	want := r.wanted
	r.mu.Unlock()
	if err := r.applied.Ready(); err != nil {
		out.Apply = err.Error()
	}
	if want != nil {
		out.View = gateway.Explain(want.view, q.Namespace, q.Pod, q.Packet)
	}
	if !addr.IsValid() {
		addr = out.View.VIP
	}
	i := slices.IndexFunc(r.cfg.VIPs, func(v vip.VIP) bool { return v.Addr == addr })
	if out.Known = i >= 0; !out.Known || want == nil {
		return answer
	}
	out.Refuse(want.own)
	r.claim(out, r.cfg.VIPs[i])
	about := []netip.Addr{out.View.Addr}
	for _, n := range want.view.Nodes {
		if n.Name == out.View.Node {
			about = append(about, n.Addrs...)
		}
	}
	for _, route := range want.down.Routes {
		if route.Dst.IsSingleIP() && route.Dst.Addr() == out.View.Addr {
			out.Back = route.Remote
		}
	}
	if out.View.Addr.IsValid() {
		kernel := host.Kernel{Filter: r.filter, Tunnel: r.tunnel, Zone: r.cfg.SNAT.Zone, Table: want.table, Plan: want.down}
		kernel.Look(ctx, &out.Common, q.Packet, about, out.View.Addr, cfg.Marks.Value(cfg.Marks.Down()))
	}
	var err error
	if out.Outward, err = r.tunnel.Way(q.Packet.Dst, 0); err != nil {
		out.NoOutward = err.Error()
	}
	return answer
}

// claim is who holds the VIP, and what this host's kernel has of it.
func (r *Replica) claim(out *trace.Gateway, v vip.VIP) {
	out.Inside = v.Inside()
	now := boottime.Now()
	states, _, _ := r.electorate.status()
	for _, s := range states {
		if s.VIP == v.Addr.String() {
			out.Held, out.Holder = s.Role == election.Holder && s.Until > now, s.Holder
			out.Voters, out.Quorum, out.Barred = s.Voters, s.Quorum, s.Why
		}
	}
	var err error
	if out.Open, err = r.fence.Held(); err != nil {
		out.Errors = append(out.Errors, err.Error())
	}
	all, err := net.InterfaceAddrs()
	if err != nil {
		out.Errors = append(out.Errors, err.Error())
	}
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil && slices.Contains(v.Addrs(), p.Addr()) {
			out.Has = append(out.Has, p.Addr())
		}
	}
	for _, p := range r.conflicts.problems() {
		if slices.ContainsFunc(v.Addrs(), func(a netip.Addr) bool { return p.Object == vipObject(a) }) {
			out.Conflict = p.Message
		}
	}
}
