package election

import (
	"testing"
	"time"
)

// finds has the simulation run without one of the rules; it must notice. Were it
// not to, the thousands of seeds of TestNeverTwoHolders would prove nothing.
func finds(t *testing.T, seeds int, timing *Timing, weaken func(*rules)) {
	t.Helper()
	for seed := uint64(1); seed <= uint64(seeds); seed++ {
		w := randomWorld(seed)
		if len(w.nodes) < 3 {
			continue
		}
		if timing != nil {
			w = newWorld(seed, len(w.nodes), w.vips, *timing)
		}
		w.rules = weaken
		chaos(w)
		if w.broken != "" {
			t.Logf("seed %d: %s", seed, w.broken)
			return
		}
	}
	t.Errorf("no two holders in %d seeds: the simulation does not see what this rule is for", seeds)
}

func TestSimulationFindsMissingPromise(t *testing.T) {
	finds(t, 500, nil, func(r *rules) { r.promise = 0 })
}

func TestSimulationFindsShortPromise(t *testing.T) {
	finds(t, 2000, nil, func(r *rules) { r.promise = r.promise * 8 / 10 })
}

func TestSimulationFindsMissingRestartWait(t *testing.T) {
	finds(t, 2000, nil, func(r *rules) { r.wait = 0 })
}

func TestSimulationFindsQuorumOneShort(t *testing.T) {
	finds(t, 500, nil, func(r *rules) { r.quorum-- })
}

// A clock off by 5 % makes the bound large enough to be hit.
func TestSimulationFindsMissingDrift(t *testing.T) {
	timing := Timing{Lease: 100 * time.Millisecond, Heartbeat: 20 * time.Millisecond, Margin: 0, Spread: time.Millisecond, Drift: 0.05}
	finds(t, 2000, &timing, func(r *rules) { r.span = timing.Lease })
}

func TestSimulationFindsMissingMargin(t *testing.T) {
	finds(t, 2000, nil, func(r *rules) { r.span += 8 * time.Millisecond })
}
