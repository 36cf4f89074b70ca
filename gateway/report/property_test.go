package report

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sallyport/sallyport/gateway"
)

// anySight draws what some replica may see of the routes.
func anySight(t *rapid.T, names []string) Sight {
	s := Sight{
		Name: rapid.SampledFrom([]string{"gw-0", "gw-1"}).Draw(t, "name"), Applied: true,
		ApplyError: rapid.SampledFrom([]string{"", "", "nft: busy"}).Draw(t, "apply error"),
	}
	s.Node = "node of " + s.Name
	for _, addr := range []netip.Addr{lowest, other} {
		v := VIP{
			Addr: addr, Holder: rapid.SampledFrom([]string{"", "gw-0", "gw-1"}).Draw(t, "holder"),
			Since: noon.Add(-time.Duration(rapid.IntRange(0, 10).Draw(t, "since")) * time.Second), Voters: []string{"gw-0", "gw-1"}, Quorum: 2,
			Conflict: rapid.SampledFrom([]string{"", "", "another MAC"}).Draw(t, "conflict"),
		}
		v.Held = v.Holder == s.Name
		s.VIPs = append(s.VIPs, v)
	}
	for _, name := range names {
		s.Plan.Routes = append(s.Plan.Routes, gateway.PlannedRoute{
			Name: name, Generation: int64(rapid.IntRange(1, 2).Draw(t, "generation")), Pods: rapid.IntRange(0, 3).Draw(t, "pods"),
		})
		if rapid.Bool().Draw(t, "overlap") {
			s.Problems = append(s.Problems, gateway.Problem{Object: "EgressRoute " + name, Reason: gateway.Overlap, Message: "narrow it"})
		}
	}
	return s
}

// Whatever the replicas see one after the other: what is written once is not written
// again, each transition is exactly one event, and a condition's time moves with its
// status only.
func TestEqualSightWritesNothingAndTransitionsAreOneEventEach(t *testing.T) {
	wrote := 0
	rapid.Check(t, func(t *rapid.T) {
		names := []string{"kyc", "payments"}
		routes := map[string]Route{}
		for i, name := range names {
			routes[name] = Route{
				Name: name, UID: name, Generation: int64(rapid.IntRange(1, 2).Draw(t, "generation")),
				VIP:     []netip.Addr{lowest, other}[i],
				Invalid: rapid.SampledFrom([]string{"", "", "spec.vip: wrong"}).Draw(t, "invalid"),
			}
		}
		for step := range rapid.IntRange(1, 12).Draw(t, "steps") {
			now := noon.Add(time.Duration(step) * time.Minute)
			s := anySight(t, names)
			all := []Route{routes["kyc"], routes["payments"]}
			for _, c := range Changes(s, all, now) {
				wrote++
				before, after := c.Route.Status, c.Status
				want := map[string]int{}
				for _, pair := range [][2]Condition{{before.Accepted, after.Accepted}, {before.Programmed, after.Programmed}} {
					if pair[0].Status != pair[1].Status || pair[0].Reason != pair[1].Reason {
						want[pair[1].Reason]++
					}
					if moved := pair[0].Since != pair[1].Since; moved != (pair[0].Status != pair[1].Status) {
						t.Fatalf("time moved %v with %q to %q", moved, pair[0].Status, pair[1].Status)
					}
				}
				if before.Holder != "" && after.Holder != "" && before.Holder != after.Holder {
					want[HolderMoved]++
				}
				got := map[string]int{}
				for _, e := range c.Events {
					got[e.Reason]++
				}
				if fmt.Sprint(got) != fmt.Sprint(want) {
					t.Fatalf("events %v, want %v", got, want)
				}
				if c.Count && (len(c.Events) > 0 || before.Pods == after.Pods) {
					t.Fatalf("called a mere count: %+v", c)
				}
				r := c.Route
				r.Status = after
				routes[r.Name] = r
			}
			again := []Route{routes["kyc"], routes["payments"]}
			if more := Changes(s, again, now); len(more) > 0 {
				t.Fatalf("written again: %+v", more)
			}
		}
	})
	if wrote == 0 {
		t.Fatal("nothing was ever written: the property says nothing")
	}
}

// Two replicas that share one sight of the VIPs are never both the writer.
func TestOneWriter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := anySight(t, []string{"payments"})
		b := a
		b.Name = map[string]string{"gw-0": "gw-1", "gw-1": "gw-0"}[a.Name]
		b.VIPs = nil
		for _, v := range a.VIPs {
			v.Held = v.Holder == b.Name
			b.VIPs = append(b.VIPs, v)
		}
		r := Route{Name: "payments", VIP: rapid.SampledFrom([]netip.Addr{lowest, other, {}, netip.MustParseAddr("192.0.2.99")}).Draw(t, "vip")}
		if now := noon.Add(time.Hour); a.Writes(r, now) == b.Writes(r, now) {
			t.Fatalf("both say %v", a.Writes(r, now))
		}
	})
}
