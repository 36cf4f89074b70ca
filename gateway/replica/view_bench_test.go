package replica

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"testing"

	"github.com/sallyport/sallyport/allowlist/endpoint"
	"github.com/sallyport/sallyport/e2e/processor"
	"github.com/sallyport/sallyport/gateway"
	"github.com/sallyport/sallyport/gateway/host"
	"github.com/sallyport/sallyport/gateway/host/hosttest"
	"github.com/sallyport/sallyport/gateway/reconcile"
	"github.com/sallyport/sallyport/snat"
	"github.com/sallyport/sallyport/tunnel"
	"github.com/sallyport/sallyport/tunnel/vxlan"
	"github.com/sallyport/sallyport/vip"
)

// cluster is a view of 20,000 pods on 500 nodes, each with one of 500 routes.
func cluster() gateway.Snapshot {
	var s gateway.Snapshot
	for i := range 500 {
		first := netip.AddrFrom4([4]byte{10, byte(i >> 2), byte(i << 6), 0})
		s.Nodes = append(s.Nodes, gateway.Node{
			Name: fmt.Sprintf("n%d", i), Addrs: []netip.Addr{netip.AddrFrom4([4]byte{172, 16, byte(i >> 8), byte(i)})},
			PodCIDRs: []netip.Prefix{netip.PrefixFrom(first, 18)},
		})
		s.Routes = append(s.Routes, gateway.Route{
			Name: fmt.Sprintf("route-%d", i), VIP: netip.AddrFrom4([4]byte{192, 0, 2, byte(10 + i%10)}),
			Destinations: []gateway.Destination{{
				CIDR: netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), 32), Ports: []gateway.Port{{Protocol: gateway.TCP, First: 443, Last: 443}},
			}},
		})
	}
	for i := range 50 {
		s.Namespaces = append(s.Namespaces, gateway.Namespace{Name: fmt.Sprintf("team-%d", i)})
	}
	var labels []map[string]string
	for i := range 500 {
		labels = append(labels, map[string]string{"app": fmt.Sprintf("app-%d", i), "tier": "web", "pod-template-hash": "7c9f8d6b5"})
	}
	for i := range 20_000 {
		node := i % 500
		s.Pods = append(s.Pods, gateway.Pod{
			Namespace: fmt.Sprintf("team-%d", i%50), Name: fmt.Sprintf("app-%d", i), UID: fmt.Sprintf("6f1c0f0e-58a2-4a08-9a50-%012d", i),
			Labels: labels[i%500], Annotation: fmt.Sprintf("route-%d", i%500), Annotated: true, Node: s.Nodes[node].Name,
			Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, byte(node >> 2), byte(node<<6 + i/500>>8), byte(i / 500)})},
		})
	}
	return s
}

// BenchmarkView brings views into the kernel that differ in twelve pods each. On a busy
// machine the processor time says more than the clock.
func BenchmarkView(b *testing.B) {
	ns := hosttest.Host(b, "spr", netip.MustParsePrefix("172.16.0.0/16"))
	log := slog.New(slog.DiscardHandler)
	snap := cluster()
	r := &Replica{log: log, cfg: Config{NodeIP: netip.MustParseAddr("172.16.0.0"), SNAT: snat.Config{Tunnel: tunnel.DefaultConfig(), Zone: 51}}}
	for i := range 10 {
		r.cfg.VIPs = append(r.cfg.VIPs, vip.VIP{Addr: netip.AddrFrom4([4]byte{192, 0, 2, byte(10 + i)})})
	}
	views, delivered := make(hosttest.Views), make(chan struct{})
	defer close(views)
	r.view = host.NewView(views, b.TempDir(), "gateway", func() { delivered <- struct{}{} }, log)
	r.loop = reconcile.New("gateway", log, nil)
	r.allowlist = endpoint.New(r.admits)
	r.watch = &watch{kick: make(chan struct{}, 1)}
	if err := ns.Do(func() (err error) {
		if r.filter, err = host.OpenFilter(b.Context(), host.NFTables, snat.TableName, log); err != nil {
			return err
		}
		r.tunnel, err = vxlan.New(r.cfg.SNAT.Tunnel, log)
		return err
	}); err != nil {
		b.Fatal(err)
	}
	defer r.tunnel.Close()
	go r.view.Run(context.WithoutCancel(b.Context()))
	apply := func() {
		pods := make([]gateway.Pod, len(snap.Pods))
		copy(pods, snap.Pods)
		next := snap
		next.Pods = pods
		views <- next
		<-delivered
		if err := ns.Do(func() error { return r.applyView(b.Context()) }); err != nil {
			b.Fatal(err)
		}
	}
	apply()
	n := 0
	before := processor.Used(b)
	for b.Loop() {
		for range 6 {
			n++
			at := n * 7919 % len(snap.Pods)
			snap.Pods[at].Annotation = fmt.Sprintf("route-%d", n%500)
			last := len(snap.Pods) - 1
			at = n * 104729 % len(snap.Pods)
			snap.Pods[at], snap.Pods[last] = snap.Pods[last], snap.Pods[at]
			snap.Pods[last].UID = fmt.Sprintf("6f1c0f0e-58a2-4a08-9a51-%012d", n)
			node := n % 500
			snap.Pods[last].Node = snap.Nodes[node].Name
			snap.Pods[last].Addrs = []netip.Addr{netip.AddrFrom4([4]byte{10, byte(node >> 2), byte(node<<6 + 32 + n>>8&31), byte(n)})}
		}
		apply()
	}
	b.ReportMetric(float64((processor.Used(b)-before).Microseconds())/1e3/float64(b.N), "cpu-ms/op")
}
