package election

import (
	"fmt"
	"testing"
	"time"
)

// afterLosing hands a VIP over in a group of that size and loses the messages of those numbers, counted from
// the first on, and tells when the heir held, when the old holder knew, and what was lost.
func afterLosing(t *testing.T, profile string, replicas int, numbers ...int) (held, known time.Duration, what string) {
	t.Helper()
	w := newWorld(7, replicas, []string{vip}, Profiles[profile])
	for _, n := range w.nodes {
		n.start()
	}
	w.run(5 * w.timing.Lease)
	holders := w.holders(vip)
	if len(holders) != 1 {
		t.Fatalf("%d hold\n%s", len(holders), w.report())
	}
	holder := holders[0]
	heir := w.nodes[0]
	if heir == holder {
		heir = w.nodes[1]
	}
	holder.do(func(m *Machine, now time.Duration) Ready { return m.Offer(now, vip) })
	w.run(time.Millisecond)
	said := 0
	w.lost = func(from string, to *node, msg Message) bool {
		for _, e := range msg.Entries {
			for _, n := range numbers {
				if n == said {
					what += fmt.Sprintf(" %v %s→%s", e.Kind, from, to.cfg.ID)
					said++
					return true
				}
			}
		}
		said++
		return false
	}
	var err error
	holder.do(func(m *Machine, now time.Duration) (r Ready) { r, err = m.HandOver(now, vip, heir.cfg.ID); return r })
	if err != nil {
		t.Fatal(err)
	}
	begun, gains := w.now, w.gains
	for w.now-begun < 2*w.timing.Lease && w.broken == "" && (held == 0 || known == 0) {
		w.run(100 * time.Microsecond)
		if got := w.holders(vip); held == 0 && len(got) == 1 && got[0] == heir {
			held = w.now - begun
		}
		if holder.m.Status()[0].Holder == heir.cfg.ID && known == 0 {
			known = w.now - begun
		}
	}
	w.run(3 * w.timing.Lease)
	if got := w.holders(vip); w.broken != "" || held == 0 || known == 0 || len(got) != 1 || got[0] != heir || w.gains != gains+1 {
		t.Fatalf("%s, %d replicas, lost%s: %s, %d hold, %d gained\n%s", profile, replicas, what, w.broken, len(got), w.gains-gains, w.report())
	}
	return held, known, what
}

// TestHandOverWaitsForNoSingleMessage: whichever of its first messages is lost, or two of
// them, the heir holds some tens of milliseconds later, in every profile.
func TestHandOverWaitsForNoSingleMessage(t *testing.T) {
	const first = 16 // to one receiver each, as many as a hand-over has in a group of five
	for profile, timing := range Profiles {
		for _, replicas := range []int{3, 5} {
			none, _, _ := afterLosing(t, profile, replicas)
			var worst [3]time.Duration // by how many were lost
			var knew [3]time.Duration
			try := func(numbers ...int) {
				n := len(numbers)
				held, known, what := afterLosing(t, profile, replicas, numbers...)
				worst[n], knew[n] = max(worst[n], held), max(knew[n], known)
				// Each loss costs one repetition, and what the timer is late by.
				if limit := none + time.Duration(n)*(timing.again()+time.Millisecond); held > limit || known > limit+time.Millisecond {
					t.Errorf("%s, %d replicas, lost%s: held after %v, known after %v, want within %v", profile, replicas, what, held, known, limit)
				}
			}
			for i := range first {
				try(i)
				for j := range i {
					try(j, i)
				}
			}
			t.Logf("%s, %d replicas: held after %v; with one message lost at most %v, with two %v; known to the old holder after %v, %v",
				profile, replicas, none, worst[1], worst[2], knew[1], knew[2])
		}
	}
}
