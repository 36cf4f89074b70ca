package vxlan

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/sallyport/sallyport/tunnel"
)

// events are the kernel's notifications of rules and routes while f runs, in
// order, as "+" or "-" and what it is. They are sent from within the system calls
// of f, so all are there when it returns.
func events(t *testing.T, f func()) []string {
	t.Helper()
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	monitor := &conn{fd: fd, buf: make([]byte, 64<<10)}
	defer func() { _ = monitor.close() }()
	const groups = 1<<(unix.RTNLGRP_IPV4_ROUTE-1) | 1<<(unix.RTNLGRP_IPV4_RULE-1) | 1<<(unix.RTNLGRP_LINK-1) | 1<<(unix.RTNLGRP_IPV4_IFADDR-1)
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		t.Fatal(err)
	}
	f()
	var seen []string
	for {
		err := monitor.receive(func(h header, b []byte) {
			switch h.typ {
			case unix.RTM_NEWROUTE:
				seen = append(seen, "+"+short(decodeRoute(b)))
			case unix.RTM_DELROUTE:
				seen = append(seen, "-"+short(decodeRoute(b)))
			case unix.RTM_NEWRULE:
				seen = append(seen, fmt.Sprintf("+rule to %d", decodeRule(b).Table))
			case unix.RTM_DELRULE:
				seen = append(seen, fmt.Sprintf("-rule to %d", decodeRule(b).Table))
			default:
				seen = append(seen, fmt.Sprintf("message %d", h.typ))
			}
		})
		if err != nil && strings.Contains(err.Error(), "did not answer") { // EAGAIN: all read
			return seen
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func short(e entry) string {
	if e.throw {
		return fmt.Sprintf("%d throw %s", e.table, e.dst)
	}
	return fmt.Sprintf("%d %s to %s", e.table, e.dst, e.remote)
}

// No packet meets half a state: what a rule leads to is there before the rule and
// goes after it, and the throw route is there whenever the tunnel route is.
func TestOrder(t *testing.T) {
	host(t)
	cfg := tunnel.DefaultConfig()
	a := applier(t, cfg)
	apply(t, a, tunnel.Plan{Local: local, FirstTable: 5301, LastTable: 5302})
	plan := func(remote string) tunnel.Plan {
		r := netip.MustParseAddr(remote)
		return tunnel.Plan{
			Local: local, FirstTable: 5301, LastTable: 5302,
			Rules: []tunnel.Rule{{Value: 0x100, Mask: 0x3f00, Table: 5301, Priority: 95}},
			Routes: []tunnel.Route{
				{Table: 5301, Dst: netip.MustParsePrefix("0.0.0.0/0"), Remote: r},
				{Table: 5301, Dst: netip.PrefixFrom(r, 32)},
			},
		}
	}
	for _, step := range []struct {
		name string
		plan tunnel.Plan
		want []string
	}{
		{"a VIP comes", plan("192.0.2.10"), []string{"+5301 throw 192.0.2.10/32", "+5301 0.0.0.0/0 to 192.0.2.10", "+rule to 5301"}},
		{"nothing changes", plan("192.0.2.10"), nil},
		{"its inside address moves", plan("192.0.2.11"), []string{"+5301 throw 192.0.2.11/32", "+5301 0.0.0.0/0 to 192.0.2.11", "-5301 throw 192.0.2.10/32"}},
		{"it goes", tunnel.Plan{Local: local, FirstTable: 5301, LastTable: 5302}, []string{"-rule to 5301", "-5301 0.0.0.0/0 to 192.0.2.11", "-5301 throw 192.0.2.11/32"}},
	} {
		got := events(t, func() { apply(t, a, step.plan) })
		if !slices.Equal(got, step.want) {
			t.Errorf("%s: %q, want %q", step.name, got, step.want)
		}
	}
}

// From any state, ours or tampered with, to any other: afterwards the kernel has
// the plan, the other program has all it had, and nothing is left to do.
func TestAnyStateToAnyState(t *testing.T) {
	host(t)
	cfg := tunnel.DefaultConfig()
	a := applier(t, cfg)
	other := tunnel.Plan{
		Local: local, FirstTable: 5400, LastTable: 5400,
		Rules:  []tunnel.Rule{{Value: 0x3f00, Mask: 0x3f00, Table: 5400, Priority: 95}},
		Routes: []tunnel.Route{{Table: 5400, Dst: netip.MustParsePrefix("10.0.0.1/32"), Remote: vipA}},
	}
	apply(t, a, other)
	tables := []int{5301, 5302, 5303}
	remotes := []netip.Addr{{}, netip.MustParseAddr("192.0.2.5"), netip.MustParseAddr("192.0.2.6"), netip.MustParseAddr("192.0.2.1")}
	route := rapid.Custom(func(t *rapid.T) tunnel.Route {
		return tunnel.Route{
			Table: rapid.SampledFrom(tables).Draw(t, "table"),
			Dst: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(rapid.IntRange(0, 3).Draw(t, "net")), 0}),
				rapid.SampledFrom([]int{24, 32}).Draw(t, "bits")),
			Remote: rapid.SampledFrom(remotes).Draw(t, "remote"),
		}
	})
	rule := rapid.Custom(func(t *rapid.T) tunnel.Rule {
		return tunnel.Rule{
			Value: rapid.SampledFrom([]uint32{0, 0x100, 0x200}).Draw(t, "value"), Mask: rapid.SampledFrom([]uint32{0x300, 0x3f00}).Draw(t, "mask"),
			Table: rapid.SampledFrom(tables).Draw(t, "table"), Priority: rapid.IntRange(95, 96).Draw(t, "priority"),
		}
	})
	place := func(r tunnel.Route) key { return key{r.Table, r.Dst} }
	rapid.Check(t, func(rt *rapid.T) {
		plan := tunnel.Plan{
			Local: local, FirstTable: 5301, LastTable: 5303,
			Rules:  rapid.SliceOfDistinct(rule, rapid.ID[tunnel.Rule]).Draw(rt, "rules"),
			Routes: rapid.SliceOfDistinct(route, place).Draw(rt, "routes"),
		}
		oif, err := a.device(t.Context(), local)
		if err != nil {
			rt.Fatal(err)
		}
		// Someone puts in routes and rules under our protocol; that some are there
		// already is no matter.
		var harm []request
		for _, r := range rapid.SliceOf(route).Draw(rt, "tampering") {
			req := putRoute(r, end{uint32(rapid.IntRange(50, 51).Draw(rt, "vni")), oif, local}, false)
			req.flags = unix.NLM_F_CREATE | rapid.SampledFrom([]uint16{unix.NLM_F_APPEND, unix.NLM_F_REPLACE, 0}).Draw(rt, "where")
			harm = append(harm, req)
		}
		for _, r := range rapid.SliceOf(rule).Draw(rt, "rule tampering") {
			harm = append(harm, addRule(r))
		}
		for i := range harm {
			harm[i].gone = []unix.Errno{unix.EEXIST}
		}
		if err := a.conn.change(t.Context(), harm); err != nil {
			rt.Fatal(err)
		}

		if err := a.Apply(t.Context(), plan); err != nil {
			rt.Fatal(err)
		}
		list, err := a.conn.listed(5301, 5303, 0)
		rules, err2 := a.conn.rules(unix.AF_INET)
		if err := errors.Join(err, err2); err != nil {
			rt.Fatal(err)
		}
		if len(list) != len(plan.Routes) || len(rules) != len(plan.Rules)+len(other.Rules) {
			rt.Fatalf("%d routes and %d rules, want %d and %d", len(list), len(rules), len(plan.Routes), len(plan.Rules)+1)
		}
		for _, r := range plan.Routes {
			if !slices.ContainsFunc(list, func(e *entry) bool { return e.key == place(r) && e.is(r, end{cfg.VNI, oif, local}) }) {
				rt.Fatalf("%v is missing", r)
			}
		}
		for _, r := range plan.Rules {
			if !slices.ContainsFunc(rules, func(have listedRule) bool { return have.Rule == r && !have.odd }) {
				rt.Fatalf("%v is missing", r)
			}
		}
		if n := writes(a, func() { err = errors.Join(a.Apply(t.Context(), plan), a.Apply(t.Context(), other)) }); n != 0 || err != nil {
			rt.Fatalf("then %d messages, %v", n, err)
		}
	})
}
