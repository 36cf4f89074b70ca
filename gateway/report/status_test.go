package report

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sallyport/sallyport/gateway"
)

var (
	lowest = netip.MustParseAddr("192.0.2.10")
	other  = netip.MustParseAddr("192.0.2.11")
	noon   = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	early  = noon.Add(-time.Hour)
)

// sight is what the holder of both VIPs sees with one route in its kernel.
func sight(route string, vip netip.Addr) Sight {
	return Sight{
		Name: "gw-0", Node: "n1", Applied: true,
		VIPs: []VIP{
			{Addr: other, Holder: "gw-0", Held: true, Since: early, Voters: []string{"gw-0", "gw-1"}, Quorum: 2},
			{Addr: lowest, Holder: "gw-0", Held: true, Since: early, Voters: []string{"gw-0", "gw-1"}, Quorum: 2},
		},
		Plan: gateway.Plan{Routes: []gateway.PlannedRoute{{Name: route, Generation: 3, VIP: vip, Pods: 2}}},
	}
}

// unheld takes a VIP's holder away.
func unheld(s Sight, vip netip.Addr, since time.Time) Sight {
	s.VIPs = slices.Clone(s.VIPs)
	for i := range s.VIPs {
		if s.VIPs[i].Addr == vip {
			s.VIPs[i].Holder, s.VIPs[i].Held, s.VIPs[i].Since = "", false, since
		}
	}
	return s
}

func taken(s Sight, vip netip.Addr) Sight {
	s.VIPs = slices.Clone(s.VIPs)
	for i := range s.VIPs {
		if s.VIPs[i].Addr == vip {
			s.VIPs[i].Holder, s.VIPs[i].Held = "gw-1", false
		}
	}
	return s
}

func TestStatusSaysWhatIsWrongAndWhoSaysIt(t *testing.T) {
	route := Route{Name: "payments", UID: "u1", Generation: 3, VIP: lowest}
	settled := Status{
		Accepted:   Condition{Status: True, Reason: Accepted, Message: "the spec is valid, and gateways are configured to hold 192.0.2.10", Since: early, ObservedGeneration: 3},
		Programmed: Condition{Status: True, Reason: Programmed, Message: "node n1 holds 192.0.2.10 and translates", Since: early, ObservedGeneration: 3},
		Holder:     "n1", Pods: 2, ObservedGeneration: 3,
	}
	for _, test := range []struct {
		name string
		edit func(*Sight, *Route)
		want string // Accepted, Programmed, holder, pods; "" for nothing written
		cure string // in a message
	}{
		{"all well", func(*Sight, *Route) {}, "True/Accepted True/Programmed n1 2", ""},
		{"another's VIP", func(s *Sight, _ *Route) { *s = taken(*s, lowest) }, "", ""},
		{"nothing applied yet", func(s *Sight, _ *Route) { s.Applied = false }, "", ""},
		{"the kernel has an older spec", func(s *Sight, _ *Route) { s.Plan.Routes[0].Generation = 2 }, "", ""},
		{"the view has not got it yet", func(s *Sight, _ *Route) { s.Plan.Routes = nil }, "", ""},
		{"invalid, although the older spec is in force", func(s *Sight, r *Route) {
			r.Invalid, r.Generation = "spec.vip: Required value", 4
		}, "False/Invalid False/NotAccepted n1 0", "spec.vip: Required value"},
		{"invalid without a VIP: the lowest VIP's holder speaks", func(s *Sight, r *Route) {
			r.Invalid, r.VIP = "spec.vip: Required value", netip.Addr{}
			*s = taken(*s, other)
		}, "False/Invalid False/NotAccepted - 0", ""},
		{"invalid without a VIP: others do not", func(s *Sight, r *Route) {
			r.Invalid, r.VIP = "spec.vip: Required value", netip.Addr{}
			*s = taken(*s, lowest)
		}, "", ""},
		{"unknown VIP", func(s *Sight, r *Route) {
			r.VIP = netip.MustParseAddr("192.0.2.99")
			s.Problems = []gateway.Problem{{Object: "EgressRoute payments", Field: "spec.vip", Reason: gateway.UnknownVIP, Message: "start the gateways with --vip 192.0.2.99"}}
		}, "False/UnknownVIP False/NotAccepted - 2", "--vip 192.0.2.99"},
		{"overlap is named, and in force", func(s *Sight, _ *Route) {
			s.Problems = []gateway.Problem{
				{Object: "EgressRoute payments", Field: "spec.destinations[0].cidr", Reason: gateway.Overlap, Message: "EgressRoute kyc wins"},
				{Object: "EgressRoute kyc", Reason: gateway.Overlap, Message: "not ours"},
			}
		}, "True/Overlap True/Programmed n1 2", "spec.destinations[0].cidr: EgressRoute kyc wins"},
		{"rules refused", func(s *Sight, _ *Route) { s.ApplyError = "nft: no space left" }, "True/Accepted False/ApplyFailed n1 2", "node n1: nft: no space left"},
		{"address not in place", func(s *Sight, _ *Route) { s.VIPs[1].Unclaimed = "claim 192.0.2.10: no such interface" }, "True/Accepted False/ClaimFailed n1 2", "no such interface"},
		{"another host claims it", func(s *Sight, _ *Route) { s.VIPs[1].Conflict = "the host with MAC 02:00:00:00:00:66 claims it" }, "True/Accepted False/VIPConflict n1 2", "02:00:00:00:00:66"},
		{"a failover is under way", func(s *Sight, _ *Route) { *s = unheld(*s, lowest, noon.Add(-Patience/2)) }, "", ""},
		{"nobody holds it, the lowest held VIP's holder says so", func(s *Sight, _ *Route) {
			*s = unheld(*s, lowest, noon.Add(-Patience))
			s.VIPs[1].Barred = "eth0: no carrier"
		}, "True/Accepted False/NoHolder - 2", "eth0: no carrier"},
		{"nobody holds it, and others say so", func(s *Sight, _ *Route) {
			*s = taken(unheld(*s, lowest, noon.Add(-Patience)), other)
		}, "", ""},
		{"no quorum: the first heard says so", func(s *Sight, _ *Route) {
			*s = unheld(unheld(*s, lowest, noon.Add(-Patience)), other, early)
			s.VIPs[0].Voters, s.VIPs[1].Voters = []string{"gw-0"}, []string{"gw-0"}
		}, "True/Accepted False/NoHolder - 2", "hears 1 of the 2 gateways"},
		{"no quorum: the others are silent", func(s *Sight, _ *Route) {
			*s = unheld(unheld(*s, lowest, noon.Add(-Patience)), other, early)
			s.Name = "gw-1"
		}, "", ""},
		{"cut off from a holder that spoke since", func(s *Sight, r *Route) {
			*s = unheld(unheld(*s, lowest, noon.Add(-2*Patience)), other, early)
			r.Status = settled
			r.Status.Programmed.Since = noon.Add(-Patience)
		}, "", ""},
		{"another has said that there is no holder", func(s *Sight, r *Route) {
			*s = unheld(unheld(*s, lowest, noon.Add(-Patience)), other, early)
			r.Status = settled
			r.Status.Programmed = Condition{Status: False, Reason: NoHolder, Message: "gateway gw-2 hears 1", ObservedGeneration: 3}
		}, "", ""},
		{"said already", func(_ *Sight, r *Route) { r.Status = settled }, "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, r := sight(route.Name, lowest), route
			test.edit(&s, &r)
			changes := Changes(s, []Route{r}, noon)
			got := ""
			for _, c := range changes {
				holder := c.Status.Holder
				if holder == "" {
					holder = "-"
				}
				got = strings.Join([]string{
					string(c.Status.Accepted.Status) + "/" + c.Status.Accepted.Reason,
					string(c.Status.Programmed.Status) + "/" + c.Status.Programmed.Reason,
					holder, string(rune('0' + c.Status.Pods)),
				}, " ")
				if said := c.Status.Accepted.Message + c.Status.Programmed.Message; !strings.Contains(said, test.cure) {
					t.Errorf("%q does not say %q", said, test.cure)
				}
			}
			if got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestCountAloneCanWaitAndChangesNoCondition(t *testing.T) {
	s := sight("payments", lowest)
	r := Route{Name: "payments", UID: "u1", Generation: 3, VIP: lowest}
	r.Status = Changes(s, []Route{r}, early)[0].Status
	s.Plan.Routes[0].Pods = 7
	got := Changes(s, []Route{r}, noon)
	want := r.Status
	want.Pods = 7
	if diff := cmp.Diff([]Change{{Route: r, Status: want, Count: true}}, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Error(diff)
	}
}

func TestFailoverIsOneEvent(t *testing.T) {
	r := Route{Name: "payments", UID: "u1", Generation: 3, VIP: lowest}
	before := sight("payments", lowest)
	before.Node = "n2"
	r.Status = Changes(before, []Route{r}, early)[0].Status
	got := Changes(sight("payments", lowest), []Route{r}, noon)
	want := []Event{{
		Object: Object{Kind: "EgressRoute", Name: "payments", UID: "u1"}, Reason: HolderMoved, Action: "Hold",
		Note: "192.0.2.10 moved from node n2 to node n1",
	}}
	if len(got) != 1 || got[0].Count {
		t.Fatalf("%+v", got)
	}
	if diff := cmp.Diff(want, got[0].Events); diff != "" {
		t.Error(diff)
	}
	if p := got[0].Status.Programmed; p.Since != early {
		t.Errorf("lastTransitionTime moved to %v with a status that stayed", p.Since)
	}
}
