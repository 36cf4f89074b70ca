package election

import (
	"strings"
	"testing"
	"time"
)

// handOver has the VIP's holder, if there is one, offer it, and hand it over to some
// other a little later, when who would take it may be out of date.
func (w *world) handOver(vip string) {
	holders := w.holders(vip)
	if len(holders) == 0 || len(w.nodes) == 1 {
		return
	}
	h := holders[0]
	heir := w.nodes[w.rand.IntN(len(w.nodes))]
	h.do(func(m *Machine, now time.Duration) Ready { return m.Offer(now, vip) })
	w.after(time.Millisecond+w.upTo(w.timing.Lease/2), func() {
		h.do(func(m *Machine, now time.Duration) Ready {
			r, err := m.HandOver(now, vip, heir.cfg.ID)
			w.logf("%s: hands %s over to %s: %v", h.cfg.ID, vip, heir.cfg.ID, err)
			return r
		})
	})
}

// calm is a group in which everything is well and a VIP is held.
func calm(t *testing.T, seed uint64) (w *world, holder *node) {
	t.Helper()
	w = newWorld(seed, []int{3, 5}[seed%2], []string{vip}, Profiles["default"])
	for _, n := range w.nodes {
		n.start()
	}
	w.run(5 * w.timing.Lease)
	holders := w.holders(vip)
	if len(holders) != 1 {
		t.Fatalf("seed %d: %d hold\n%s", seed, len(holders), w.report())
	}
	return w, holders[0]
}

// other is some member that is not n.
func (w *world) other(n *node) *node {
	for {
		if o := w.nodes[w.rand.IntN(len(w.nodes))]; o != n {
			return o
		}
	}
}

// A hand-over takes two journeys of messages and goes to the heir and nobody else.
func TestHandOverGoesToTheHeirAtOnce(t *testing.T) {
	for seed := uint64(1); seed <= 500; seed++ {
		w, holder := calm(t, seed)
		heir := w.other(holder)
		holder.do(func(m *Machine, now time.Duration) Ready { return m.Offer(now, vip) })
		w.run(time.Millisecond)
		var err error
		holder.do(func(m *Machine, now time.Duration) (r Ready) { r, err = m.HandOver(now, vip, heir.cfg.ID); return r })
		gains := w.gains
		// A journey is at most 350 µs. Where two voters make no quorum, the heir's request may
		// reach the third before the release does, and is made again.
		w.run(map[int]time.Duration{3: 1500 * time.Microsecond, 5: w.timing.Spread}[len(w.nodes)])
		if got := w.holders(vip); err != nil || len(got) != 1 || got[0] != heir {
			t.Fatalf("seed %d: %v, %d hold\n%s", seed, err, len(got), w.report())
		}
		w.run(10 * w.timing.Lease)
		if w.broken != "" || w.gains != gains+1 {
			t.Fatalf("seed %d: %s, %d gained\n%s", seed, w.broken, w.gains-gains, w.report())
		}
	}
}

// With losses it is said again; and an heir that dies is not waited for long.
func TestHandOverWithLossAndDeath(t *testing.T) {
	inherited := 0
	const seeds = 1000
	for seed := uint64(1); seed <= seeds; seed++ {
		w, holder := calm(t, seed)
		heir := w.other(holder)
		holder.do(func(m *Machine, now time.Duration) Ready { return m.Offer(now, vip) })
		w.run(time.Millisecond)
		dies := seed%4 == 0
		if dies {
			heir.kill(true)
		} else {
			w.faults = faults{loss: 0.4, double: 0.2, late: 0.2, lateBy: 20 * time.Millisecond}
		}
		holder.do(func(m *Machine, now time.Duration) Ready { r, _ := m.HandOver(now, vip, heir.cfg.ID); return r })
		w.run(w.timing.Lease / 2)
		if got := w.holders(vip); !dies && len(got) == 1 && got[0] == heir {
			inherited++
		}
		w.faults = faults{}
		w.run(2 * w.timing.Lease)
		if w.broken != "" || len(w.holders(vip)) != 1 {
			t.Fatalf("seed %d: %s, %d hold\n%s", seed, w.broken, len(w.holders(vip)), w.report())
		}
	}
	if alive := seeds * 3 / 4; inherited < alive*8/10 {
		t.Errorf("of %d heirs alive %d held half a lease later, with 40 %% of the messages lost", alive, inherited)
	}
}

func TestHandOverIsRefused(t *testing.T) {
	w, holder := calm(t, 1)
	heir := w.other(holder)
	refused := func(n *node, to, want string) {
		t.Helper()
		_, err := n.m.HandOver(n.clock(), vip, to)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("from %s to %s: %v, want %q", n.cfg.ID, to, err, want)
		}
	}
	refused(heir, holder.cfg.ID, "not held here")
	refused(holder, heir.cfg.ID, "did not say") // nothing was offered
	heir.do(func(m *Machine, now time.Duration) Ready { return m.SetEligible(now, vip, false, "link down") })
	holder.do(func(m *Machine, now time.Duration) Ready { return m.Offer(now, vip) })
	w.run(time.Millisecond)
	refused(holder, heir.cfg.ID, "did not say")
	refused(holder, holder.cfg.ID, "did not say")
	refused(holder, "nobody", "did not say")
	if w.holders(vip)[0] != holder {
		t.Error("it was given up all the same")
	}
	heir.do(func(m *Machine, now time.Duration) Ready { return m.SetEligible(now, vip, true, "") })
	holder.do(func(m *Machine, now time.Duration) Ready { return m.Offer(now, vip) })
	w.run(w.timing.Lease * 11 / 10)
	refused(holder, heir.cfg.ID, "did not say") // it is too long ago
}

// A caller that keeps its lease when it is told to let go makes two holders, and the
// simulation of hand-overs notices.
func TestSimulationFindsHandOverWithoutRelease(t *testing.T) {
	for seed := uint64(1); seed <= 100; seed++ {
		w, _ := calm(t, seed)
		w.deaf = true
		w.handOver(vip)
		w.run(2 * w.timing.Lease)
		if w.broken != "" {
			t.Logf("seed %d: %s", seed, w.broken)
			return
		}
	}
	t.Error("no two holders in 100 seeds: the simulation does not see what letting go is for")
}
