package election

import (
	"testing"
	"time"
)

// frozen counts, over many phases of the heartbeat, after how many stops of all hosts at
// once another holds than before. They go on within a moment of each other.
func frozen(t *testing.T, timing Timing, d time.Duration, trials int) (moves int) {
	t.Helper()
	for seed := uint64(1); seed <= uint64(trials); seed++ {
		w := newWorld(seed, 3, []string{vip}, timing)
		for _, n := range w.nodes {
			w.after(w.upTo(timing.Lease/10), n.start)
		}
		w.run(4*timing.Lease + w.upTo(timing.Lease))
		before := w.holders(vip)
		if len(before) != 1 {
			t.Fatalf("seed %d: %d holders after the start\n%s", seed, len(before), w.report())
		}
		for _, n := range w.nodes {
			n.pause()
			w.after(d+w.upTo(timing.Spread/6), n.resume)
		}
		w.run(d + 6*timing.Lease)
		after := w.holders(vip)
		if len(after) != 1 {
			t.Fatalf("seed %d: %d holders after all were stopped for %v\n%s", seed, len(after), d, w.report())
		}
		if after[0] != before[0] {
			moves++
		}
	}
	return moves
}

// A machine that all hosts share stops them all for a moment, and takes nobody's VIP away.
func TestAStopOfAllMovesNothing(t *testing.T) {
	for _, name := range []string{"default", "fast"} {
		timing := Profiles[name]
		for _, d := range []time.Duration{timing.Lease / 2, timing.Lease * 7 / 10, timing.Lease * 9 / 10, timing.Lease * 11 / 10, 3 * timing.Lease} {
			const trials = 200
			moves := frozen(t, timing, d, trials)
			t.Logf("%s, all stopped for %v: %d moves of %d", name, d, moves, trials)
			if moves > trials/20 {
				t.Errorf("%s, all stopped for %v: %d moves of %d", name, d, moves, trials)
			}
		}
	}
}
