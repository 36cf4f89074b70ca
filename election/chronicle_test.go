package election_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/sallyport/sallyport/election"
)

func TestChronicleTellsHoldersAndGaps(t *testing.T) {
	noon := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	at := func(seconds int) time.Time { return noon.Add(time.Duration(seconds) * time.Second) }
	c := election.NewChronicle([]string{"192.0.2.10", "192.0.2.11"}, 4, noon)
	for i, to := range []string{"gw-0", "gw-0", "", "gw-1"} {
		c.Enter(election.Transition{VIP: "192.0.2.10", To: to, Term: uint64(i), Reason: "because"}, at(10*i+10))
	}
	want := []election.Spell{
		{Reason: "this gateway started", From: noon, To: at(10)},
		{Holder: "gw-0", Term: 1, Reason: "because", From: at(10), To: at(30)},
		{Term: 2, Reason: "because", From: at(30), To: at(40)},
		{Holder: "gw-1", Term: 3, Reason: "because", From: at(40)},
	}
	if diff := cmp.Diff(want, c.Of("192.0.2.10")); diff != "" {
		t.Error(diff)
	}
	if other := c.Of("192.0.2.11"); len(other) != 1 || other[0].Holder != "" {
		t.Errorf("another VIP's: %+v", other)
	}
	c.Of("192.0.2.10")[0].Holder = "changed by the reader"
	c.Enter(election.Transition{VIP: "192.0.2.10", Term: 4, Reason: "because"}, at(20)) // the clock was set back
	got := c.Of("192.0.2.10")
	if len(got) != 4 || got[0].Holder != "gw-0" || !got[3].From.Equal(at(40)) {
		t.Errorf("after a fifth spell: %+v", got)
	}
}

// Whatever comes: spells follow each other without a hole, none is of the holder before,
// and no more are kept than asked for.
func TestChronicleHasNoHoles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.IntRange(1, 5).Draw(t, "limit")
		now := time.Unix(1_800_000_000, 0)
		c := election.NewChronicle([]string{"v"}, limit, now)
		for range rapid.IntRange(0, 20).Draw(t, "transitions") {
			now = now.Add(time.Duration(rapid.IntRange(-5, 60).Draw(t, "seconds")) * time.Second)
			c.Enter(election.Transition{VIP: "v", To: rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "to")}, now)
			spells := c.Of("v")
			if len(spells) > limit || !spells[len(spells)-1].To.IsZero() {
				t.Fatalf("%d spells of at most %d: %+v", len(spells), limit, spells)
			}
			for i, s := range spells[:len(spells)-1] {
				if next := spells[i+1]; !s.To.Equal(next.From) || s.Holder == next.Holder || s.To.Before(s.From) {
					t.Fatalf("%+v and then %+v", s, next)
				}
			}
		}
	})
}
