package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"testing"

	"github.com/sallyport/sallyport/e2e/processor"
	"github.com/sallyport/sallyport/gateway"
	"github.com/sallyport/sallyport/gateway/host"
	"github.com/sallyport/sallyport/gateway/host/hosttest"
	"github.com/sallyport/sallyport/tunnel"
)

// large is a view of one node with 5,000 pods, each with one of 1,000 routes.
func large() gateway.Snapshot {
	s := gateway.Snapshot{
		Nodes:      []gateway.Node{{Name: "n1", Addrs: []netip.Addr{netip.MustParseAddr("172.16.0.1")}, PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}},
		Namespaces: []gateway.Namespace{{Name: "default"}},
	}
	for i := range 1000 {
		s.Routes = append(s.Routes, gateway.Route{
			Name: fmt.Sprintf("route-%d", i), VIP: netip.MustParseAddr("192.0.2.10"),
			Destinations: []gateway.Destination{{CIDR: netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), 32)}},
		})
	}
	for i := range 5000 {
		s.Pods = append(s.Pods, pod(fmt.Sprintf("app-%d", i), i, i))
	}
	return s
}

func pod(name string, addr, route int) gateway.Pod {
	return gateway.Pod{
		Namespace: "default", Name: name, Labels: map[string]string{"app": "web"}, Node: "n1",
		Annotation: fmt.Sprintf("route-%d", route%1000), Annotated: true,
		Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, byte(addr >> 16), byte(addr >> 8), byte(addr)})},
	}
}

// BenchmarkView brings views into the kernel that differ in one pod each. On a busy
// machine the processor time says more than the clock; announced is what of it was used
// before the kernel was told.
func BenchmarkView(b *testing.B) {
	ns := hosttest.Host(b, "spw", netip.MustParsePrefix("172.16.0.1/16"))
	views := make(hosttest.Views)
	defer close(views)
	var a *Agent
	if err := ns.Do(func() (err error) {
		a, err = New(b.Context(), Config{
			NodeName: "n1", NodeIP: netip.MustParseAddr("172.16.0.1"), Tunnel: tunnel.DefaultConfig(), Netfilter: host.NFTables, StateDir: b.TempDir(),
		}, views, slog.New(slog.DiscardHandler))
		return err
	}); err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := errors.Join(a.tunnel.Close(), a.host.Close()); err != nil {
			b.Error(err)
		}
	}()
	delivered := make(chan struct{})
	a.view = host.NewView(views, b.TempDir(), "agent", func() { delivered <- struct{}{} }, a.log)
	go a.view.Run(context.WithoutCancel(b.Context()))
	snap := large()
	apply := func() {
		views <- snap
		<-delivered
		if err := ns.Do(func() error { return a.applyView(b.Context()) }); err != nil {
			b.Fatal(err)
		}
	}
	apply()
	n := 0
	before := processor.Used(b)
	for b.Loop() {
		n++
		snap.Pods = append(slices.Clone(snap.Pods[:5000]), pod(fmt.Sprintf("late-%d", n), 1<<20+n&0xffff, n))
		apply()
	}
	b.ReportMetric(float64((processor.Used(b)-before).Microseconds())/1e3/float64(b.N), "cpu-ms/op")
}
