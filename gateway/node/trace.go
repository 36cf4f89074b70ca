package node

import (
	"context"
	"net/netip"
	"slices"

	"github.com/sallyport/sallyport/gateway"
	"github.com/sallyport/sallyport/gateway/host"
	nf "github.com/sallyport/sallyport/netfilter"
	"github.com/sallyport/sallyport/trace"
	"github.com/sallyport/sallyport/tunnel"
)

// wanted is what the kernel is to have.
type wanted struct {
	view  gateway.Snapshot  // of this node, its pods with the addresses that they live behind
	own   []gateway.Problem // of this node itself
	ends  []tunnel.Remote
	up    tunnel.Plan
	table nf.Table
}

// Trace implements host.Program.
func (a *Agent) Trace(ctx context.Context, q trace.Question, _ netip.Addr) host.TraceAnswer {
	out := &trace.Agent{Common: trace.Common{Node: a.cfg.NodeName, Live: a.view.Live(), Device: a.cfg.Tunnel.Device}}
	answer := host.TraceAnswer{Agent: out}
	a.mu.Lock()
	want := a.wanted
	a.mu.Unlock()
	if err := a.applied.Ready(); err != nil {
		out.Apply = err.Error()
	}
	if want == nil {
		return answer
	}
	if out.View = gateway.Explain(want.view, q.Namespace, q.Pod, q.Packet); !out.View.Found {
		snap, _ := a.view.Snapshot()
		if i := slices.IndexFunc(snap.Pods, func(p gateway.Pod) bool { return p.Namespace == q.Namespace && p.Name == q.Pod }); i >= 0 {
			out.View.Found, out.View.Node = true, snap.Pods[i].Node // another's
		}
		return answer
	}
	out.Refuse(want.own)
	out.Left = len(out.View.Addrs) == 0 && a.listed(q)
	vip := out.View.VIP
	if !vip.IsValid() {
		return answer
	}
	vips := make([]netip.Addr, 0, len(want.ends))
	for _, e := range want.ends {
		vips = append(vips, e.VIP)
		if e.VIP == vip {
			out.Remote = e.Inside
		}
	}
	if slots, err := a.cfg.Tunnel.Marks.Slots(vips); err == nil {
		out.Mark = a.cfg.Tunnel.Marks.Value(slots[vip])
	}
	kernel := host.Kernel{Filter: a.filter, Tunnel: a.tunnel, Table: want.table, Plan: want.up}
	kernel.Look(ctx, &out.Common, q.Packet, []netip.Addr{out.View.Addr, out.Remote}, q.Packet.Dst, out.Mark)
	if path, ok := a.path(ctx, out.Remote); ok {
		out.Path = &path
	}
	return answer
}

// listed says whether the source has an address of the pod, be it nobody's at present.
func (a *Agent) listed(q trace.Question) bool {
	snap, _ := a.view.Snapshot()
	return slices.ContainsFunc(snap.Pods, func(p gateway.Pod) bool {
		return p.Namespace == q.Namespace && p.Name == q.Pod && len(p.Addrs) > 0
	})
}
