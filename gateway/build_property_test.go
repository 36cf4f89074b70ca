package gateway

import (
	"fmt"
	"math/rand"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// drawSnapshot draws views from a small world, in which names, addresses and
// ranges meet often.
func drawSnapshot(t *rapid.T) Snapshot {
	pick := func(what string, from ...string) string { return rapid.SampledFrom(from).Draw(t, what) }
	draw := func(what string, n int) int { return rapid.IntRange(0, n).Draw(t, what) }
	selector := func() Selector {
		switch draw("selector", 3) {
		case 0:
			return Selector{}
		case 1:
			return Selector{Expressions: []Requirement{{"team", Operator(pick("op", "In", "NotIn", "Exists", "DoesNotExist")), []string{pick("value", "x", "y")}}}}
		}
		return Selector{MatchLabels: pairs("team", pick("value", "x", "y"))}
	}
	var s Snapshot
	for i := range draw("routes", 5) {
		r := Route{Name: fmt.Sprintf("r%d", i), VIP: addr("192.0.2.1" + pick("vip", "0", "1")), NamespaceSelector: selector()}
		if draw("dated", 1) == 0 {
			r.Created = time.Unix(int64(draw("created", 2)), 0)
		}
		if draw("podSelector", 2) == 0 {
			sel := selector()
			r.PodSelector = &sel
		}
		for range draw("destinations", 3) {
			d := Destination{CIDR: netip.PrefixFrom(addr(pick("range", "10.0.0.0", "203.0.113.0", "203.0.113.128", "192.0.2.0", "224.0.0.0")), rapid.IntRange(0, 32).Draw(t, "bits")).Masked()}
			if draw("ports", 1) == 0 {
				d.Ports = []Port{{TCP, uint16(draw("first", 3)), uint16(3 + draw("last", 3))}}
			}
			for range draw("except", 2) {
				d.Except = append(d.Except, netip.PrefixFrom(addr(pick("except", "10.0.0.0", "203.0.113.0", "203.0.113.64")), rapid.IntRange(8, 32).Draw(t, "bits")).Masked())
			}
			r.Destinations = append(r.Destinations, d)
		}
		s.Routes = append(s.Routes, r)
	}
	opt := func() (string, bool) {
		if draw("annotated", 1) == 0 {
			return "", false
		}
		return pick("annotation", "", "r0", "r1,r0", "r2", "r0,nope", "r3,r4,r1"), true
	}
	for i := range draw("namespaces", 3) {
		ns := Namespace{Name: fmt.Sprintf("ns%d", i), Labels: map[string]string{}}
		if draw("labelled", 2) > 0 {
			ns.Labels["team"] = pick("team", "x", "y")
		}
		ns.Annotation, ns.Annotated = opt()
		s.Namespaces = append(s.Namespaces, ns)
	}
	for i := range draw("nodes", 3) {
		s.Nodes = append(s.Nodes, Node{Name: fmt.Sprintf("n%d", i), Addrs: []netip.Addr{addr(fmt.Sprintf("192.0.2.%d", 1+draw("node", 3)))},
			PodCIDRs: []netip.Prefix{cidr(fmt.Sprintf("10.0.%d.0/24", i))}})
	}
	for i := range draw("pods", 8) {
		p := Pod{Namespace: fmt.Sprintf("ns%d", draw("namespace", 3)), Name: fmt.Sprintf("p%d", i), UID: fmt.Sprint(i), Node: fmt.Sprintf("n%d", draw("node", 3)),
			HostNetwork: draw("host", 9) == 0, Ended: draw("ended", 9) == 0, Terminating: draw("terminating", 5) == 0, Labels: map[string]string{}}
		if draw("labelled", 1) > 0 {
			p.Labels["team"] = pick("team", "x", "y")
		}
		p.Annotation, p.Annotated = opt()
		for range draw("addresses", 2) {
			p.Addrs = append(p.Addrs, addr(fmt.Sprintf("10.0.%d.%d", draw("third", 3), draw("fourth", 4))))
		}
		s.Pods = append(s.Pods, p)
	}
	return s
}

func TestBuildIgnoresTheOrderOfItsInput(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSnapshot(t)
		if len(s.Routes) > 0 && rapid.Bool().Draw(t, "double") { // duplicates included
			double := s.Routes[0]
			double.VIP = addr("192.0.2.12")
			s.Routes = append(s.Routes, double)
		}
		if len(s.Nodes) > 0 && rapid.Bool().Draw(t, "double") {
			double := s.Nodes[0]
			double.Addrs = []netip.Addr{addr("192.0.2.77")}
			s.Nodes = append(s.Nodes, double)
		}
		plan, found := Build(s, nil)
		shuffled := s
		r := rand.New(rand.NewSource(rapid.Int64().Draw(t, "seed")))
		shuffled.Routes, shuffled.Pods = shuffle(r, s.Routes), shuffle(r, s.Pods)
		shuffled.Namespaces, shuffled.Nodes = shuffle(r, s.Namespaces), shuffle(r, s.Nodes)
		again, foundAgain := Build(shuffled, nil)
		if !reflect.DeepEqual(plan, again) {
			t.Fatalf("plans differ:\n%+v\n%+v", plan, again)
		}
		if !slices.Equal(found, foundAgain) {
			t.Fatalf("problems differ:\n%v\n%v", found, foundAgain)
		}
	})
}

func shuffle[T any](r *rand.Rand, all []T) []T {
	all = slices.Clone(all)
	r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}

// asks is the selection said again the slow way, straight from the specification.
func asks(s Snapshot, p Pod, r Route) bool {
	i := slices.IndexFunc(s.Namespaces, func(n Namespace) bool { return n.Name == p.Namespace })
	var ns Namespace
	if i >= 0 {
		ns = s.Namespaces[i]
	}
	if !(i >= 0 && r.NamespaceSelector.Matches(ns.Labels)) && !r.NamespaceSelector.Empty() {
		return false
	}
	value := ns.Annotation
	if p.Annotated {
		value = p.Annotation
	}
	for name := range strings.SplitSeq(value, ",") {
		if strings.TrimSpace(name) == r.Name {
			return true
		}
	}
	return r.PodSelector != nil && r.PodSelector.Matches(p.Labels)
}

func TestBuildPlansExactlyTheSelected(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSnapshot(t)
		plan, _ := Build(s, nil)
		planned := map[netip.Addr]PlannedPod{}
		for _, p := range plan.Pods {
			if _, twice := planned[p.Addr]; twice || len(p.Routes) == 0 || !slices.IsSorted(p.Routes) {
				t.Fatalf("%+v: twice, without routes or unsorted", p)
			}
			planned[p.Addr] = p
		}
		claimants := map[netip.Addr][]Pod{}
		for _, p := range s.Pods {
			for _, a := range p.Addrs {
				if !p.Ended && !p.HostNetwork {
					claimants[a] = append(claimants[a], p)
				}
			}
		}
		for a, pods := range claimants {
			if slices.ContainsFunc(pods, func(p Pod) bool { return !p.Terminating }) {
				pods = slices.DeleteFunc(pods, func(p Pod) bool { return p.Terminating })
			}
			for i, r := range plan.Routes {
				route := s.Routes[slices.IndexFunc(s.Routes, func(other Route) bool { return other.Name == r.Name })]
				want := slices.ContainsFunc(pods, func(p Pod) bool { return asks(s, p, route) })
				if got := slices.Contains(planned[a].Routes, i); got != want {
					t.Fatalf("%s has route %s: %v, want %v", a, r.Name, got, want)
				}
				if all := !slices.ContainsFunc(pods, func(p Pod) bool { return !asks(s, p, route) }); want && !all && !planned[a].Disputed {
					t.Fatalf("%s would be admitted by %s for a pod that has not got it", a, r.Name)
				}
			}
			delete(planned, a)
		}
		if len(planned) > 0 {
			t.Fatalf("planned addresses of no live pod: %v", planned)
		}
	})
}

func TestBuildIsUnmovedByBadObjects(t *testing.T) {
	bad := []func(*Snapshot){
		func(s *Snapshot) {
			s.Pods = append(s.Pods, annotated(Pod{Namespace: "ns0", Name: "bad", HostNetwork: true}, "nope"))
		},
		func(s *Snapshot) { s.Pods = append(s.Pods, annotated(Pod{Namespace: "gone", Name: "bad"}, "nope")) },
		func(s *Snapshot) {
			s.Namespaces = append(s.Namespaces, Namespace{Name: "zz-bad", Annotation: "nope,r0", Annotated: true})
		},
		func(s *Snapshot) { s.Problems = append(s.Problems, Problem{Object: "zz-bad", Message: "broken"}) },
	}
	rapid.Check(t, func(t *rapid.T) {
		s := drawSnapshot(t)
		with := s
		with.Pods, with.Namespaces = slices.Clone(s.Pods), slices.Clone(s.Namespaces)
		rapid.SampledFrom(bad).Draw(t, "bad")(&with)
		plan, found := Build(s, nil)
		planWith, foundWith := Build(with, nil)
		if !reflect.DeepEqual(plan, planWith) {
			t.Fatalf("the plan changed:\n%+v\n%+v", plan, planWith)
		}
		// That routes overlap is told as soon as anything has both, be it bad otherwise.
		overlap := func(p Problem) bool { return p.Reason == Overlap }
		found = slices.DeleteFunc(found, overlap)
		foundWith = slices.DeleteFunc(foundWith, func(p Problem) bool { return overlap(p) || strings.Contains(p.Object, "bad") })
		if !slices.Equal(found, foundWith) {
			t.Fatalf("other problems changed:\n%v\n%v", found, foundWith)
		}
	})
}

func TestRouteIDsStayWithTheirNames(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SliceOfNDistinct(rapid.StringMatching(`[a-z]{1,8}`), 1, 50, rapid.ID[string]).Draw(t, "names")
		taken := map[uint16]bool{}
		for i, name := range names {
			id := routeID(name, taken)
			if id == 0 || len(taken) != i+1 {
				t.Fatalf("%s has ID %d, which is 0 or taken", name, id)
			}
			if alone := routeID(name, map[uint16]bool{}); !taken[alone] {
				t.Fatalf("%s gave way from %d to %d without need", name, alone, id)
			}
		}
	})
	taken := map[uint16]bool{}
	first := routeID("same", taken)
	if second := routeID("same", taken); second != first%lastRouteID+1 {
		t.Errorf("two routes that fall on one ID have %d and %d", first, second)
	}
	full := map[uint16]bool{}
	for id := range lastRouteID {
		full[uint16(id+1)] = true
	}
	if id := routeID("one too many", full); id == 0 {
		t.Error("the 65536th route has no ID")
	}
}
