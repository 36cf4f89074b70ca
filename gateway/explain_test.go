package gateway

import (
	"net/netip"
	"strings"
	"testing"
)

func TestExplain(t *testing.T) {
	vip := netip.MustParseAddr("192.0.2.10")
	team := Selector{MatchLabels: map[string]string{"team": "shop"}}
	to := func(cidr string, ports ...Port) Destination {
		return Destination{CIDR: netip.MustParsePrefix(cidr), Ports: ports}
	}
	excepted := to("203.0.113.0/24", Port{TCP, 443, 443}, Port{UDP, 5000, 5010})
	excepted.Except = []netip.Prefix{netip.MustParsePrefix("203.0.113.7/32")}
	view := Snapshot{
		Routes: []Route{
			{Name: "payments", VIP: vip, Destinations: []Destination{excepted}},
			{Name: "closed", VIP: vip, NamespaceSelector: team, Destinations: []Destination{to("198.51.100.0/24")}},
			{Name: "chosen", VIP: vip, PodSelector: &Selector{MatchLabels: map[string]string{"app": "c"}}, Destinations: []Destination{to("198.51.100.0/24")}},
			{Name: "wide", VIP: vip, Destinations: []Destination{to("0.0.0.0/0")}},
		},
		Namespaces: []Namespace{{Name: "ns"}, {Name: "annotated", Annotation: "payments", Annotated: true}},
		Nodes:      []Node{{Name: "n1", Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}}},
	}
	pod := func(namespace, name, addr, annotation string) {
		view.Pods = append(view.Pods, Pod{Namespace: namespace, Name: name, UID: name, Node: "n1", Annotation: annotation, Annotated: annotation != "",
			Labels: map[string]string{"app": name}, Addrs: []netip.Addr{netip.MustParseAddr(addr)}})
	}
	pod("ns", "a", "10.244.1.10", "payments, closed,nowhere")
	pod("annotated", "b", "10.244.1.11", "")
	pod("ns", "c", "10.244.1.12", "")
	pod("ns", "w", "10.244.1.13", "wide")
	chance := func(e Explanation, route string) Chance {
		for _, c := range e.Chances {
			if c.Route == route {
				return c
			}
		}
		return Chance{}
	}
	for _, test := range []struct {
		namespace, pod, to string
		protocol           Protocol
		port               uint16
		takes              string // route that takes it
		chance, by         string
		refuses            string
	}{
		{"ns", "a", "203.0.113.9", TCP, 443, "payments", "payments", ByAnnotation, ""},
		{"ns", "a", "203.0.113.9", UDP, 5010, "payments", "payments", ByAnnotation, ""},
		{"ns", "a", "203.0.113.9", UDP, 5011, "", "payments", ByAnnotation, "port 5011/udp is not among its ports 443/tcp, 5000-5010/udp"},
		{"ns", "a", "203.0.113.7", TCP, 443, "", "payments", ByAnnotation, "in except of 203.0.113.0/24, by 203.0.113.7/32"},
		{"ns", "a", "198.51.100.1", TCP, 443, "", "payments", ByAnnotation, "in none of its destinations 203.0.113.0/24"},
		{"ns", "a", "198.51.100.1", TCP, 443, "", "chosen", "", ""},
		{"annotated", "b", "203.0.113.9", TCP, 443, "payments", "payments", ByNamespace, ""},
		{"ns", "c", "198.51.100.1", TCP, 1, "chosen", "chosen", BySelector, ""},
		{"ns", "w", "10.244.1.99", TCP, 1, "", "wide", ByAnnotation, "the pod range of Node n1"},
		{"ns", "w", "192.0.2.10", TCP, 1, "", "wide", ByAnnotation, "a VIP"},
		{"ns", "w", "8.8.8.8", TCP, 1, "wide", "wide", ByAnnotation, ""},
	} {
		e := Explain(view, test.namespace, test.pod, Packet{netip.MustParseAddr(test.to), test.protocol, test.port})
		c := chance(e, test.chance)
		if !e.Found || e.Route != test.takes || e.VIP.IsValid() != (test.takes != "") || c.By != test.by || !strings.Contains(c.Refuses, test.refuses) || (test.refuses == "") != (c.Refuses == "") {
			t.Errorf("%s/%s to %s port %d: %+v", test.namespace, test.pod, test.to, test.port, e)
		}
	}
	e := Explain(view, "ns", "a", Packet{netip.MustParseAddr("198.51.100.1"), TCP, 443})
	if c := chance(e, "closed"); !c.Exists || c.Admits || c.By != ByAnnotation || c.Refuses != "" {
		t.Errorf("a route that does not admit the namespace: %+v", c)
	}
	if c := chance(e, "nowhere"); c.Exists || c.By != ByAnnotation {
		t.Errorf("a route that there is not: %+v", c)
	}
	if e := Explain(view, "ns", "nobody", Packet{}); e.Found {
		t.Errorf("a pod that there is not: %+v", e)
	}
}
