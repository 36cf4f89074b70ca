package gateway

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }
func cidr(s string) netip.Prefix   { return netip.MustParsePrefix(s) }
func labels(kv ...string) Selector { return Selector{MatchLabels: pairs(kv...)} }

func pairs(kv ...string) map[string]string {
	m := map[string]string{}
	for i := 0; i < len(kv); i += 2 {
		m[kv[i]] = kv[i+1]
	}
	return m
}

// cluster is a small valid view that the cases change.
func cluster() Snapshot {
	return Snapshot{
		Routes: []Route{
			{Name: "payments", VIP: addr("192.0.2.10"), NamespaceSelector: labels("team", "checkout"),
				Destinations: []Destination{{CIDR: cidr("203.0.113.0/24"), Ports: []Port{{TCP, 443, 443}}}}},
			{Name: "kyc", VIP: addr("192.0.2.11"), NamespaceSelector: labels("team", "checkout"), PodSelector: &Selector{MatchLabels: pairs("app", "kyc")},
				Destinations: []Destination{{CIDR: cidr("198.51.100.0/24")}}},
		},
		Namespaces: []Namespace{{Name: "shop", Labels: pairs("team", "checkout")}, {Name: "other", Labels: pairs("team", "ops")}},
		Nodes: []Node{
			{Name: "n1", Addrs: []netip.Addr{addr("192.0.2.1")}, PodCIDRs: []netip.Prefix{cidr("10.244.1.0/24")}},
			{Name: "n2", Addrs: []netip.Addr{addr("192.0.2.2")}, PodCIDRs: []netip.Prefix{cidr("10.244.2.0/24")}},
		},
		Pods: []Pod{
			annotated(pod("shop", "a", "n1", "10.244.1.10"), "payments"),
			pod("shop", "b", "n2", "10.244.2.10"),
		},
	}
}

func pod(ns, name, node string, addrs ...string) Pod {
	p := Pod{Namespace: ns, Name: name, UID: ns + name, Node: node, Labels: pairs("app", name)}
	for _, a := range addrs {
		p.Addrs = append(p.Addrs, addr(a))
	}
	return p
}

func annotated(p Pod, routes string) Pod {
	p.Annotation, p.Annotated = routes, true
	return p
}

// selected is the plan's pods as "ns/name address routes", to compare by eye.
func selected(p Plan) []string {
	var out []string
	for _, pod := range p.Pods {
		s := pod.Namespace + "/" + pod.Name + " " + pod.Addr.String()
		for _, r := range pod.Routes {
			s += " " + p.Routes[r].Name
		}
		if pod.Disputed {
			s += " disputed"
		}
		out = append(out, s)
	}
	return out
}

const a = "shop/a 10.244.1.10 payments"

func TestBuildSelects(t *testing.T) {
	for _, c := range []struct {
		name     string
		change   func(*Snapshot)
		pods     []string
		problems []string // each a part of String(), in order
	}{
		{name: "by annotation", pods: []string{a}},
		{name: "by several names, with spaces and doubles",
			change: func(s *Snapshot) { s.Pods[0].Annotation = " kyc ,payments,, payments" }, pods: []string{"shop/a 10.244.1.10 kyc payments"}},
		{name: "by the namespace's annotation, unless the pod has its own",
			change: func(s *Snapshot) {
				s.Namespaces[0].Annotation, s.Namespaces[0].Annotated = "kyc", true
				s.Pods = append(s.Pods, annotated(pod("shop", "c", "n1", "10.244.1.12"), ""))
			},
			pods: []string{a, "shop/b 10.244.2.10 kyc"}},
		{name: "by podSelector, besides the annotation",
			change: func(s *Snapshot) { s.Pods[0].Labels["app"], s.Pods[1].Labels["app"] = "kyc", "kyc" },
			pods:   []string{"shop/a 10.244.1.10 kyc payments", "shop/b 10.244.2.10 kyc"}},
		{name: "by podSelector only where the namespace is admitted",
			change: func(s *Snapshot) { s.Pods[1].Labels["app"], s.Pods[1].Namespace = "kyc", "other" }, pods: []string{a}},
		{name: "by expressions",
			change: func(s *Snapshot) {
				s.Routes[1].PodSelector = &Selector{Expressions: []Requirement{
					{"app", In, []string{"a", "b"}}, {"app", NotIn, []string{"a"}}, {"app", Exists, nil}, {"gone", DoesNotExist, nil}, {"gone", NotIn, []string{"x"}},
				}}
			},
			pods: []string{a, "shop/b 10.244.2.10 kyc"}},
		{name: "every pod of every namespace",
			change: func(s *Snapshot) {
				s.Routes[1].NamespaceSelector, s.Routes[1].PodSelector = Selector{}, &Selector{}
				s.Pods[1].Namespace = "nowhere"
			},
			pods: []string{"shop/a 10.244.1.10 kyc payments", "nowhere/b 10.244.2.10 kyc"}},
		{name: "unknown route",
			change: func(s *Snapshot) { s.Pods[0].Annotation = "payments,paymnts" }, pods: []string{a},
			problems: []string{"Pod shop/a: metadata.annotations[sallyport.dev/egress-routes]: there is no EgressRoute paymnts: create it"}},
		{name: "unknown route of a namespace, once",
			change:   func(s *Snapshot) { s.Namespaces[0].Annotation, s.Namespaces[0].Annotated = "paymnts", true },
			pods:     []string{a},
			problems: []string{"Namespace shop: metadata.annotations[sallyport.dev/egress-routes]: there is no EgressRoute paymnts"}},
		{name: "namespace not admitted",
			change:   func(s *Snapshot) { s.Pods[0].Namespace = "other" },
			problems: []string{"Pod other/a: metadata.annotations[sallyport.dev/egress-routes]: EgressRoute payments does not admit namespace other: label"}},
		{name: "namespace not in the view",
			change:   func(s *Snapshot) { s.Pods[0].Namespace = "nowhere" },
			problems: []string{"Namespace nowhere is not in the view"}},
		{name: "an unknown namespace has no labels that DoesNotExist could match",
			change: func(s *Snapshot) {
				s.Routes[0].NamespaceSelector = Selector{Expressions: []Requirement{{"barred", DoesNotExist, nil}}}
				s.Pods[0].Namespace = "nowhere"
			},
			problems: []string{"Namespace nowhere is not in the view"}},
		{name: "hostNetwork", change: func(s *Snapshot) { s.Pods[0].HostNetwork = true },
			problems: []string{"Pod shop/a: spec.hostNetwork: the pod shares its node's address"}},
		{name: "the node's address without hostNetwork", change: func(s *Snapshot) { s.Pods[0].Addrs[0] = addr("192.0.2.1") },
			problems: []string{"192.0.2.1 is an address of Node n1"}},
		{name: "a VIP as pod address", change: func(s *Snapshot) { s.Pods[0].Addrs[0] = addr("192.0.2.11") },
			problems: []string{"192.0.2.11 is a VIP"}},
		{name: "ended", change: func(s *Snapshot) { s.Pods[0].Ended, s.Pods[0].Annotation = true, "nonsense" }},
		{name: "no address yet", change: func(s *Snapshot) { s.Pods[0].Addrs = nil }},
		{name: "other family", change: func(s *Snapshot) { s.Pods[0].Addrs = append(s.Pods[0].Addrs, addr("fd00::1")) }, pods: []string{a}},
		{name: "terminating pods still run", change: func(s *Snapshot) { s.Pods[0].Terminating = true }, pods: []string{a}},
		{name: "unknown node", change: func(s *Snapshot) { s.Pods[0].Node = "n9" }, pods: []string{a},
			problems: []string{"Pod shop/a: spec.nodeName: there is no Node n9"}},
		{name: "no node", change: func(s *Snapshot) { s.Pods[0].Node = "" }, pods: []string{a}, problems: []string{"has an address but no node"}},
		{name: "node without address", change: func(s *Snapshot) { s.Nodes[0].Addrs = nil }, pods: []string{a},
			problems: []string{"Node n1 has no address of the family of 10.244.1.10"}},
		{name: "two nodes of one name", change: func(s *Snapshot) { s.Nodes = append(s.Nodes, s.Nodes[0]) }, pods: []string{a},
			problems: []string{"Node n1: there are two Nodes n1"}},
		{name: "two nodes with one address", change: func(s *Snapshot) { s.Nodes[1].Addrs = s.Nodes[0].Addrs }, pods: []string{a},
			problems: []string{"Node n2: status.addresses: 192.0.2.1 is also an address of Node n1"}},
		{name: "two routes of one name", change: func(s *Snapshot) { s.Routes = append(s.Routes, s.Routes[0]) }, pods: []string{a},
			problems: []string{"EgressRoute payments: there are two"}},
		{name: "two namespaces of one name", change: func(s *Snapshot) { s.Namespaces = append(s.Namespaces, s.Namespaces[0]) }, pods: []string{a},
			problems: []string{"Namespace shop: there are two"}},
		{name: "the source's problems", change: func(s *Snapshot) {
			s.Problems = []Problem{{Object: "f.yaml", File: "f.yaml", Line: 3, Message: "broken"}}
		}, pods: []string{a}, problems: []string{"f.yaml:3: broken"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := cluster()
			if c.change != nil {
				c.change(&s)
			}
			plan, found := Build(s, nil)
			if got := selected(plan); !slices.Equal(got, c.pods) {
				t.Errorf("pods %q, want %q", got, c.pods)
			}
			wantProblems(t, found, c.problems...)
		})
	}
}

func wantProblems(t *testing.T, found []Problem, want ...string) {
	t.Helper()
	if len(found) != len(want) {
		t.Fatalf("problems %v, want %q", found, want)
	}
	for i, p := range found {
		if !strings.Contains(p.String(), want[i]) {
			t.Errorf("problem %q, want it to contain %q", p, want[i])
		}
	}
}

func TestBuildSharedAddress(t *testing.T) {
	const addr1 = "10.244.1.10"
	for _, c := range []struct {
		name    string
		rival   Pod
		change  func(*Snapshot)
		pods    []string
		member  bool
		problem string
	}{
		{name: "the unselected one gets nothing, the selected one does not leak",
			rival: pod("shop", "z", "n1", addr1), pods: []string{a + " disputed"}, problem: "dropped until one of them is gone"},
		{name: "different routes", rival: annotated(pod("shop", "z", "n1", addr1), "kyc"),
			pods: []string{"shop/a 10.244.1.10 kyc payments disputed"}, problem: "10.244.1.10 is also the address of Pod shop/z"},
		{name: "different nodes", rival: annotated(pod("shop", "z", "n2", addr1), "payments"), pods: []string{a + " disputed"}, problem: "is also"},
		{name: "same routes and node", rival: annotated(pod("shop", "z", "n1", addr1), "payments"), pods: []string{a}, member: true, problem: "nothing else changes"},
		{name: "one ended", rival: Pod{Namespace: "shop", Name: "z", Ended: true, Node: "n1", Addrs: []netip.Addr{addr(addr1)}}, pods: []string{a}, member: true},
		{name: "the deleted one's standing ends", rival: pod("shop", "z", "n1", addr1),
			change: func(s *Snapshot) { s.Pods[0].Terminating = true }, member: true},
		{name: "the deleted one claims nothing", rival: Pod{Namespace: "other", Name: "z", Terminating: true, Node: "n2", Addrs: []netip.Addr{addr(addr1)}},
			pods: []string{a}, member: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := cluster()
			s.Pods = append(s.Pods, c.rival)
			if c.change != nil {
				c.change(&s)
			}
			plan, found := Build(s, nil)
			if got := selected(plan); !slices.Equal(got, c.pods) {
				t.Errorf("pods %q, want %q", got, c.pods)
			}
			if got := slices.Contains(plan.Members, Member{addr(addr1), addr("192.0.2.1")}); got != c.member {
				t.Errorf("members %v, want %s in it: %v", plan.Members, addr1, c.member)
			}
			for _, p := range plan.Admitted().Pods {
				if p.Disputed {
					t.Errorf("a gateway would admit %v", p)
				}
			}
			if c.problem == "" {
				wantProblems(t, found)
			} else {
				wantProblems(t, found, c.problem)
			}
		})
	}
}

func TestBuildPlan(t *testing.T) {
	s := cluster()
	s.Routes[0].Created = time.Unix(2, 0)
	s.Routes = append(s.Routes, Route{Name: "zz-oldest", Created: time.Unix(1, 0), VIP: addr("192.0.2.10")})
	plan, found := Build(s, []netip.Addr{addr("192.0.2.10")})
	wantProblems(t, found, "EgressRoute kyc: spec.vip: no gateway holds 192.0.2.11, so nothing can leave by this route: start the gateways with --vip 192.0.2.11")
	var names []string
	ids := map[uint16]bool{}
	for _, r := range plan.Routes {
		names = append(names, r.Name)
		if r.ID == 0 || ids[r.ID] {
			t.Errorf("route %s has ID %d, again or none", r.Name, r.ID)
		}
		ids[r.ID] = true
	}
	if want := []string{"zz-oldest", "payments", "kyc"}; !slices.Equal(names, want) {
		t.Errorf("routes %q, want %q: the older first, the undated last", names, want)
	}
	if plan.Routes[1].Pods != 1 || plan.Routes[2].Pods != 0 {
		t.Errorf("pods of the routes: %+v", plan.Routes)
	}
	if want := []netip.Addr{addr("192.0.2.1"), addr("192.0.2.2")}; !slices.Equal(plan.Peers, want) {
		t.Errorf("peers %v, want %v", plan.Peers, want)
	}
	if want := []netip.Addr{addr("192.0.2.10"), addr("192.0.2.11")}; !slices.Equal(plan.VIPs, want) {
		t.Errorf("VIPs %v, want %v: a route that nobody serves must not leak", plan.VIPs, want)
	}
	if want := []Member{{addr("10.244.1.10"), addr("192.0.2.1")}, {addr("10.244.2.10"), addr("192.0.2.2")}}; !slices.Equal(plan.Members, want) {
		t.Errorf("members %v, want %v", plan.Members, want)
	}
}

func TestBuildKeepsClearOfTheCluster(t *testing.T) {
	for _, c := range []struct {
		name         string
		destination  Destination
		except       string // of the planned destination; "-": it is not planned
		problem      string
		internal     []netip.Prefix
		unrangedPods []string
	}{
		{name: "elsewhere", destination: Destination{CIDR: cidr("203.0.113.0/24")}},
		{name: "everything", destination: Destination{CIDR: cidr("0.0.0.0/0")},
			except: "10.244.1.0/24 10.244.2.0/24 127.0.0.0/8 169.254.0.0/16 192.0.2.1/32 192.0.2.2/32 192.0.2.10/32 192.0.2.11/32 192.0.2.99/32 224.0.0.0/4"},
		{name: "around nodes and VIPs", destination: Destination{CIDR: cidr("192.0.2.0/24"), Except: []netip.Prefix{cidr("192.0.2.8/29")}},
			except: "192.0.2.1/32 192.0.2.2/32 192.0.2.8/29 192.0.2.99/32"},
		{name: "a node", destination: Destination{CIDR: cidr("192.0.2.1/32")}, except: "-", problem: "192.0.2.1/32 lies in an address of Node n1"},
		{name: "in a pod range", destination: Destination{CIDR: cidr("10.244.1.128/25")}, except: "-", problem: "lies in the pod range of Node n1 (10.244.1.0/24)"},
		{name: "multicast", destination: Destination{CIDR: cidr("239.1.0.0/16")}, except: "-", problem: "the multicast range"},
		{name: "nothing left", destination: Destination{CIDR: cidr("192.0.2.0/30"), Except: []netip.Prefix{cidr("192.0.2.0/32"), cidr("192.0.2.3/32")}},
			except: "-", problem: "nothing is left of 192.0.2.0/30"},
		{name: "a range of the cluster", destination: Destination{CIDR: cidr("10.96.0.0/11")}, internal: []netip.Prefix{cidr("10.96.0.0/12")}, except: "10.96.0.0/12"},
		{name: "other family", destination: Destination{CIDR: cidr("2001:db8::/32")}, except: "-", problem: "address family"},
		{name: "pods in no range", destination: Destination{CIDR: cidr("10.0.0.0/8"), Except: []netip.Prefix{cidr("10.7.0.0/16")}},
			unrangedPods: []string{"10.7.0.1", "10.7.0.2", "10.8.0.1"}, except: "10.7.0.0/16 10.244.1.0/24 10.244.2.0/24", problem: "10.0.0.0/8 contains 10.8.0.1 of Pod shop/x"},
		{name: "pods excepted", destination: Destination{CIDR: cidr("10.0.0.0/8"), Except: []netip.Prefix{cidr("10.7.0.0/16")}},
			unrangedPods: []string{"10.7.0.1", "10.7.0.2"}, except: "10.7.0.0/16 10.244.1.0/24 10.244.2.0/24"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := cluster()
			s.Internal = c.internal
			s.Routes[0].Destinations = []Destination{c.destination}
			s.Routes[1].Destinations = nil
			if len(c.unrangedPods) > 0 {
				s.Pods = append(s.Pods, pod("shop", "x", "n1", c.unrangedPods...))
			}
			plan, found := Build(s, []netip.Addr{addr("192.0.2.10"), addr("192.0.2.11"), addr("192.0.2.99")})
			got := "-"
			if d := plan.Routes[1].Destinations; len(d) == 1 {
				var parts []string
				for _, e := range d[0].Except {
					parts = append(parts, e.String())
				}
				got = strings.Join(parts, " ")
			}
			if got != c.except {
				t.Errorf("except %q, want %q", got, c.except)
			}
			if c.problem == "" {
				wantProblems(t, found)
			} else {
				wantProblems(t, found, c.problem)
			}
		})
	}
}

func TestBuildNamesOverlaps(t *testing.T) {
	port := func(first, last uint16) []Port { return []Port{{TCP, first, last}} }
	for _, c := range []struct {
		name   string
		a, b   Destination // of routes a (first by name) and b
		bOlder bool
		want   string
	}{
		{name: "apart", a: Destination{CIDR: cidr("203.0.113.0/25")}, b: Destination{CIDR: cidr("203.0.113.128/25")}},
		{name: "longer prefix", a: Destination{CIDR: cidr("203.0.0.0/16"), Ports: port(443, 443)}, b: Destination{CIDR: cidr("203.0.113.0/24")},
			want: "EgressRoute a: spec.destinations[0].cidr: 203.0.0.0/16 matches packets that 203.0.113.0/24 of EgressRoute b (the longer prefix) matches too and wins"},
		{name: "with ports", a: Destination{CIDR: cidr("203.0.113.0/24")}, b: Destination{CIDR: cidr("203.0.113.0/24"), Ports: port(443, 443)},
			want: "EgressRoute a: spec.destinations[0].cidr: 203.0.113.0/24 matches packets that 203.0.113.0/24 of EgressRoute b (it names ports)"},
		{name: "older", a: Destination{CIDR: cidr("203.0.113.0/24")}, b: Destination{CIDR: cidr("203.0.113.0/24")}, bOlder: true,
			want: "EgressRoute a: spec.destinations[0].cidr: 203.0.113.0/24 matches packets that 203.0.113.0/24 of EgressRoute b (the older route)"},
		{name: "name", a: Destination{CIDR: cidr("203.0.113.0/24")}, b: Destination{CIDR: cidr("203.0.113.0/24")},
			want: "EgressRoute b: spec.destinations[0].cidr: 203.0.113.0/24 matches packets that 203.0.113.0/24 of EgressRoute a (the first by name)"},
		{name: "other ports", a: Destination{CIDR: cidr("203.0.113.0/24"), Ports: port(1, 442)}, b: Destination{CIDR: cidr("203.0.113.0/24"), Ports: port(443, 443)}},
		{name: "other protocol", a: Destination{CIDR: cidr("203.0.113.0/24"), Ports: []Port{{UDP, 443, 443}}}, b: Destination{CIDR: cidr("203.0.113.0/24"), Ports: port(443, 443)}},
		{name: "excepted", a: Destination{CIDR: cidr("203.0.0.0/16"), Except: []netip.Prefix{cidr("203.0.113.0/25")}},
			b: Destination{CIDR: cidr("203.0.113.0/24"), Except: []netip.Prefix{cidr("203.0.113.128/25")}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := cluster()
			s.Routes = []Route{
				{Name: "b", VIP: addr("192.0.2.10"), Destinations: []Destination{c.b}},
				{Name: "a", VIP: addr("192.0.2.10"), Destinations: []Destination{c.a}},
			}
			if c.bOlder {
				s.Routes[0].Created = time.Unix(1, 0)
			}
			s.Pods[0].Annotation, s.Pods[1] = "a,b", annotated(s.Pods[1], "b")
			_, found := Build(s, nil)
			alone := Overlaps(s.Routes)
			s.Pods[0].Annotation = "a"
			if _, found := Build(s, nil); len(found) > 0 {
				t.Errorf("no pod has both, yet: %v", found)
			}
			if c.want == "" {
				wantProblems(t, found)
				wantProblems(t, alone)
				return
			}
			wantProblems(t, found, c.want)
			wantProblems(t, alone, c.want)
		})
	}
}
