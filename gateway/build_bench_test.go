package gateway

import (
	"fmt"
	"net/netip"
	"testing"
)

// largeSnapshot is a cluster of the size that one view must stay cheap at: routes
// by annotation, by namespace default and by podSelector.
func largeSnapshot(pods, routes int) Snapshot {
	const namespaces, nodes = 200, 100
	var s Snapshot
	for i := range nodes {
		s.Nodes = append(s.Nodes, Node{
			Name: fmt.Sprintf("n%d", i), Addrs: []netip.Addr{netip.AddrFrom4([4]byte{172, 16, byte(i >> 8), byte(i)})},
			PodCIDRs: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i), 0, 0}), 16)},
		})
	}
	for i := range namespaces {
		name := fmt.Sprintf("ns%d", i)
		s.Namespaces = append(s.Namespaces, Namespace{Name: name, Labels: map[string]string{
			"kubernetes.io/metadata.name": name, "team": fmt.Sprintf("t%d", i%20),
		}, Annotation: fmt.Sprintf("r%d", i%20*3), Annotated: i%4 == 0})
	}
	for i := range routes {
		r := Route{
			Name: fmt.Sprintf("r%d", i), VIP: netip.AddrFrom4([4]byte{192, 0, 2, byte(10 + i%8)}),
			NamespaceSelector: Selector{MatchLabels: map[string]string{"team": fmt.Sprintf("t%d", i/3%20)}},
			Destinations: []Destination{
				{CIDR: netip.PrefixFrom(netip.AddrFrom4([4]byte{100, byte(i >> 8), byte(i), 0}), 24), Ports: []Port{{TCP, 443, 443}}},
				{CIDR: netip.PrefixFrom(netip.AddrFrom4([4]byte{101, byte(i >> 8), byte(i), 0}), 25)},
			},
		}
		if i%2 == 0 {
			r.PodSelector = &Selector{MatchLabels: map[string]string{"app": fmt.Sprintf("app%d", i)}}
		}
		s.Routes = append(s.Routes, r)
	}
	for i := range pods {
		p := Pod{
			Namespace: fmt.Sprintf("ns%d", i%namespaces), Name: fmt.Sprintf("pod-%d", i), UID: fmt.Sprintf("uid-%d", i),
			Labels: map[string]string{"app": fmt.Sprintf("app%d", i%1000), "tier": "web", "pod-template-hash": fmt.Sprint(i % 5000), "version": "1"},
			Node:   fmt.Sprintf("n%d", i%nodes), Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, byte(i % nodes), byte(i / nodes >> 8), byte(i / nodes)})},
		}
		if i%3 == 0 {
			p.Annotation, p.Annotated = fmt.Sprintf("r%d, r%d", i%20*3, i%20*3+1), true
		}
		s.Pods = append(s.Pods, p)
	}
	return s
}

func BenchmarkBuild(b *testing.B) {
	for _, size := range []struct{ pods, routes int }{{5000, 200}, {20000, 1000}} {
		s := largeSnapshot(size.pods, size.routes)
		b.Run(fmt.Sprintf("pods=%d/routes=%d", size.pods, size.routes), func(b *testing.B) {
			b.ReportAllocs()
			var plan Plan
			var found []Problem
			for b.Loop() {
				plan, found = Build(s, nil)
			}
			b.ReportMetric(float64(len(plan.Pods)), "selected")
			b.ReportMetric(float64(len(found)), "problems")
		})
	}
}
