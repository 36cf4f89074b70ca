package gateway

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

func TestNewHold(t *testing.T) {
	addr := netip.MustParseAddr
	pods := []Pod{
		{Namespace: "a", Name: "plain", Addrs: []netip.Addr{addr("10.244.1.11")}},
		{Namespace: "a", Name: "leaving", Addrs: []netip.Addr{addr("10.244.1.10")}, Terminating: true},
		{Namespace: "a", Name: "ended", Addrs: []netip.Addr{addr("10.244.1.12")}, Ended: true},
		{Namespace: "a", Name: "host", Addrs: []netip.Addr{addr("192.0.2.1")}, HostNetwork: true},
		{Namespace: "a", Name: "young"},
	}
	ranges := func(texts ...string) (out []netip.Prefix) {
		for _, s := range texts {
			out = append(out, netip.MustParsePrefix(s))
		}
		return out
	}
	view := func(podCIDRs ...string) Snapshot {
		return Snapshot{Routes: []Route{{Name: "r"}}, Nodes: []Node{{Name: "n2", PodCIDRs: ranges("10.244.2.0/24")}, {Name: "n1", PodCIDRs: ranges(podCIDRs...)}}}
	}
	open := view()
	open.Routes[0].FailOpen = true
	for _, c := range []struct {
		name            string
		view            Snapshot
		pods            []Pod
		given           []netip.Prefix
		ranges, problem string
	}{
		{name: "the node's ranges", view: view("10.244.1.0/24"), pods: pods, ranges: "[10.244.1.0/24]"},
		{name: "given ranges win", view: view("10.244.9.0/24"), pods: pods, given: ranges("10.244.1.8/29", "10.244.1.0/24"), ranges: "[10.244.1.0/24]"},
		{name: "no range", view: view(), pods: pods, ranges: "[]", problem: "give the agent --pod-cidr, or the Node its podCIDRs"},
		{name: "no range and no pod", view: view(), ranges: "[]"},
		{name: "a pod outside", view: view("10.244.1.11/32"), pods: pods, ranges: "[10.244.1.11/32]", problem: "pod address 10.244.1.10 lies outside the node's pod range 10.244.1.11/32"},
		{name: "pods outside", view: view("10.9.0.0/16"), pods: pods, ranges: "[10.9.0.0/16]", problem: "10.244.1.10 (with 1 others)"},
		{name: "every route fails open", view: open, pods: pods, ranges: "[]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, found := NewHold(c.view, "n1", c.pods, c.given)
			if got := fmt.Sprint(h.Ranges); got != c.ranges {
				t.Errorf("ranges %s, want %s", got, c.ranges)
			}
			if got := fmt.Sprint(h.Known); c.pods != nil && got != "[10.244.1.10 10.244.1.11]" {
				t.Errorf("known %s", got)
			}
			if got := fmt.Sprint(found); (c.problem == "") != (len(found) == 0) || !strings.Contains(got, c.problem) {
				t.Errorf("problems %s, want %q", got, c.problem)
			}
		})
	}
}

func TestHeldAndExclusive(t *testing.T) {
	plan := Plan{Routes: []PlannedRoute{
		{Name: "usual", Destinations: []Destination{{CIDR: netip.MustParsePrefix("203.0.113.0/24"), Except: []netip.Prefix{netip.MustParsePrefix("203.0.113.9/32")}, Ports: []Port{{TCP, 443, 444}}}}},
		{Name: "open", FailOpen: true, Destinations: []Destination{{CIDR: netip.MustParsePrefix("198.51.100.0/24")}}},
		{Name: "only", Exclusive: true, Destinations: []Destination{{CIDR: netip.MustParsePrefix("192.88.99.0/24")}}},
	}}
	if got, want := fmt.Sprint(Held("held", plan, 1).Others), "[203.0.113.0/24 except 203.0.113.9/32 6/443-444: 0x1 192.88.99.0/24: 0x1]"; got != want {
		t.Errorf("held %s, want %s", got, want)
	}
	if got, want := fmt.Sprint(Exclusive("only", plan, 1).Others), "[192.88.99.0/24: 0x1]"; got != want {
		t.Errorf("exclusive %s, want %s", got, want)
	}
}

func TestTheNamespacesToldOfAreCapped(t *testing.T) {
	var pods []Pod
	add := func(namespace string, n int) {
		for range n {
			i := len(pods)
			pods = append(pods, Pod{Namespace: namespace, Name: fmt.Sprint(i), Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 244, 1, byte(i)})}})
		}
	}
	for i := range ToldMost + 5 {
		add(fmt.Sprintf("few-%02d", i), 1)
	}
	add("many", 2)
	pods = append(pods, Pod{Namespace: "kube-system", HostNetwork: true, Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}})
	h, _ := NewHold(Snapshot{}, "n1", pods, nil)
	if len(h.Told) != ToldMost || h.Told[0].Namespace != "few-00" {
		t.Fatalf("%d namespaces are told of, from %v on; want %d from few-00 on", len(h.Told), h.Told, ToldMost)
	}
	last := h.Told[ToldMost-1]
	if last.Namespace != "many" || len(last.Addrs) != 2 {
		t.Errorf("the one with the most pods is told of as %v", last)
	}
}
