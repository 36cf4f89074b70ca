package chaos

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func take(p Plan, n int) []Step {
	var steps []Step
	for s := range p.Steps() {
		if steps = append(steps, s); len(steps) == n {
			return steps
		}
	}
	return steps
}

func plans(t *rapid.T) Plan {
	return Plan{
		Seed:    rapid.Uint64().Draw(t, "seed"),
		Longest: time.Duration(rapid.Int64Range(int64(time.Second), int64(time.Minute)).Draw(t, "longest")),
	}
}

func TestEveryStepIsValid(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := plans(t)
		for i, s := range take(p, 200) {
			if s.Number != i+1 {
				t.Fatalf("step %d has number %d", i+1, s.Number)
			}
			if s.Hold < p.Longest/101 || s.Hold > p.Longest {
				t.Fatalf("%s: longest is %s", s, p.Longest)
			}
			if len(s.Faults) < 1 || len(s.Faults) > len(Roles) {
				t.Fatalf("%s: %d faults", s, len(s.Faults))
			}
			struck, emptied := map[Role]bool{}, 0
			for _, f := range s.Faults {
				if struck[f.Role] {
					t.Fatalf("%s: two faults of one node, which could not be mended one by one", s)
				}
				struck[f.Role] = true
				if f.empties() {
					emptied++
				}
				if !s.Single() && f.ofAll() {
					t.Fatalf("%s: a fault of all nodes among others", s)
				}
				if f.Kind == OneWay && f.Other == f.Role {
					t.Fatalf("%s: from a node to itself", s)
				}
				if !s.Single() && f.Kind == HandOver {
					t.Fatalf("%s: a hand-over among faults, which may have no heir", s)
				}
				if (f.Kind == Loss) != (f.Percent > 0) || f.Percent > 50 {
					t.Fatalf("%s: %d %%", s, f.Percent)
				}
			}
			if emptied > 1 {
				t.Fatalf("%s: %d kernels forget, which no replication outlives", s, emptied)
			}
		}
	})
}

func TestAPlanIsItsSeeds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := plans(t)
		text := fmt.Sprint(take(p, 50))
		if again := fmt.Sprint(take(p, 50)); again != text {
			t.Fatalf("twice, and not the same:\n%s\n%s", text, again)
		}
		if other := fmt.Sprint(take(Plan{Seed: p.Seed + 1, Longest: p.Longest}, 50)); other == text {
			t.Fatalf("the next seed gives the same: %s", text)
		}
	})
}

// A run of some minutes has seen all there is.
func TestEveryKindComesInItsTurn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var single []Kind
		storms := 0
		for _, s := range take(plans(t), 400) {
			if s.Single() {
				single = append(single, s.Faults[0].Kind)
			} else {
				storms++
			}
		}
		for turn := range slices.Chunk(single, len(Kinds)) {
			slices.Sort(turn)
			if once := slices.Compact(slices.Clone(turn)); len(once) != len(turn) {
				t.Fatalf("twice in one turn: %v", turn)
			}
		}
		if storms == 0 {
			t.Fatal("no two faults at a time in 400 steps")
		}
	})
}

// What is demanded while a fault lasts, written out.
func TestReach(t *testing.T) {
	h, a, b := Holder, Standby1, Standby2
	for _, c := range []struct {
		fault Fault
		want  []Role
	}{
		{Fault{Kind: PowerCut, Role: h}, []Role{a, b}},
		{Fault{Kind: Partition, Role: a}, []Role{h, b}},
		{Fault{Kind: OneWay, Role: h, Other: b}, []Role{a}},
		{Fault{Kind: OneWay, Role: b, Other: a}, []Role{h}},
		{Fault{Kind: GossipCut, Role: h}, []Role{h, a, b}},
		{Fault{Kind: PauseGateway, Role: h}, []Role{h, a, b}},
		{Fault{Kind: KillAgents}, []Role{h, a, b}},
		{Fault{Kind: Reinstall, Role: b}, []Role{h, a}},
		{Fault{Kind: HandOver, Role: a}, []Role{h, a, b}},
		{Fault{Kind: Isolate}, nil},
		{Fault{Kind: Loss, Role: a, Percent: 5}, nil},
		{Fault{Kind: KillGateways}, nil},
	} {
		if got := (Step{Faults: []Fault{c.fault}}).Reach(); !slices.Equal(got, c.want) {
			t.Errorf("%s: reach %v, want %v", c.fault, got, c.want)
		}
	}
	if got := (Step{Faults: []Fault{{Kind: Routes}, {Kind: Routes}}}).Reach(); got != nil {
		t.Errorf("two faults at once: reach %v, want none", got)
	}
}
