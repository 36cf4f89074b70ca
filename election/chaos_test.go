package election

import (
	"flag"
	"fmt"
	"testing"
	"time"
)

var (
	seedFlag  = flag.Uint64("seed", 0, "replay this seed of the simulation only")
	seedsFlag = flag.Int("seeds", 2000, "number of seeds of the simulation")
)

// chaos breaks things at random for a while, then lets everything be whole and
// asks for a holder of each VIP. It returns what went wrong.
func chaos(w *world) string {
	lease := w.timing.Lease
	for _, n := range w.nodes {
		w.after(w.upTo(2*lease), n.start)
	}
	if w.rand.IntN(2) == 0 {
		w.faults = faults{loss: 0.3 * w.rand.Float64(), double: 0.2 * w.rand.Float64(),
			stop: 0.005 * w.rand.Float64(),
			late: 0.3 * w.rand.Float64() * w.rand.Float64(), lateBy: 4 * lease}
	}
	end := 12 * lease
	for at := w.upTo(lease); at < end; at += w.upTo(lease) {
		w.after(at, func() { w.upset() })
	}
	w.run(end)
	w.heal()
	// What is still under way, and the restart wait of those only now started.
	w.run(6 * lease)
	w.logf("calm")
	w.run(8 * lease)
	if w.broken != "" {
		return w.broken
	}
	for _, vip := range w.vips {
		if len(w.holders(vip)) != 1 {
			return fmt.Sprintf("%s is held by nobody although everything is whole", vip)
		}
	}
	gains := w.gains
	w.run(10 * lease)
	if w.broken == "" && w.gains != gains {
		return "a holder changes although everything is whole"
	}
	return w.broken
}

// upset does one random thing to one random node.
func (w *world) upset() {
	lease := w.timing.Lease
	n := w.nodes[w.rand.IntN(len(w.nodes))]
	if h := w.holders(w.vips[0]); len(h) > 0 && w.rand.IntN(2) == 0 {
		n = h[0]
	}
	vip := w.vips[w.rand.IntN(len(w.vips))]
	id := n.cfg.ID
	what := w.rand.IntN(14)
	if w.loyal && (what < 2 || what == 10) {
		what = 5
	}
	switch what {
	case 0, 1:
		n.kill(w.rand.IntN(2) == 0)
		w.after(w.upTo(2*lease)*time.Duration(w.rand.IntN(2)), n.start)
	case 2, 3:
		n.pause()
		w.after(w.upTo(3*lease), n.resume)
	case 4:
		// Suspended: the clock goes on, and comes back further on than it should.
		n.pause()
		w.after(w.upTo(2*lease), func() { n.jump(lease + w.upTo(10*lease)); n.resume() })
	case 5, 6:
		for _, p := range w.nodes {
			in, out := w.rand.IntN(3) > 0, w.rand.IntN(3) > 0
			w.logf("%s and %s: cut in %v out %v", id, p.cfg.ID, in, out)
			w.cut[[2]string{p.cfg.ID, id}], w.cut[[2]string{id, p.cfg.ID}] = in, out
		}
	case 7:
		w.logf("the network is mended")
		clear(w.cut)
	case 8:
		w.logf("%s: resigns %s", id, vip)
		n.do(func(m *Machine, now time.Duration) Ready { return m.Resign(now, vip, "asked to") })
	case 9:
		n.do(func(m *Machine, now time.Duration) Ready { return m.SetEligible(now, vip, false, "link down") })
		w.after(w.upTo(2*lease), func() {
			n.do(func(m *Machine, now time.Duration) Ready { return m.SetEligible(now, vip, true, "") })
		})
	case 10:
		n.do(func(m *Machine, now time.Duration) Ready { return m.ResignAll(now, "stopping") })
		w.after(w.upTo(lease), func() { n.kill(false); n.start() })
	case 11:
		n.slew()
	case 12, 13:
		w.handOver(vip)
	}
}

func (w *world) heal() {
	w.logf("everything is mended")
	clear(w.cut)
	w.faults = faults{}
	for _, n := range w.nodes {
		n.resume()
		if n.m != nil && n.m.leaving {
			n.kill(false)
		}
		n.start()
		for _, vip := range w.vips {
			n.do(func(m *Machine, now time.Duration) Ready { return m.SetEligible(now, vip, true, "") })
		}
	}
}

// randomWorld is the group of a seed.
func randomWorld(seed uint64) *world {
	timings := []Timing{Profiles["default"], Profiles["fast"], Profiles["wan"],
		{Lease: 100 * time.Millisecond, Heartbeat: 20 * time.Millisecond, Margin: time.Millisecond, Spread: 5 * time.Millisecond, Drift: 0.05}}
	replicas := []int{3, 3, 1, 2, 5}[seed%5]
	vips := []string{"192.0.2.10", "192.0.2.11", "192.0.2.12"}[:1+seed%3]
	return newWorld(seed, replicas, vips, timings[seed/7%4])
}

func TestNeverTwoHolders(t *testing.T) {
	first, n := uint64(1), *seedsFlag
	if *seedFlag != 0 {
		first, n = *seedFlag, 1
	}
	if testing.Short() {
		n = min(n, 200)
	}
	gains := 0
	for seed := first; seed < first+uint64(n); seed++ {
		w := randomWorld(seed)
		if wrong := chaos(w); wrong != "" {
			t.Fatalf("seed %d: %s (replay: go test -run %s -seed %d)\n%s", seed, wrong, t.Name(), seed, w.report())
		}
		gains += w.gains
	}
	if gains < n {
		t.Errorf("only %d leases were gained over %d seeds: the simulation does not test much", gains, n)
	}
}

// Members beyond the replicas, of names before and behind, must not make a second
// quorum. Where the voters are named that holds whatever happens.
func TestNeverTwoHoldersWithSurplus(t *testing.T) {
	n := uint64(*seedsFlag) / 4
	if testing.Short() {
		n = 50
	}
	for seed := uint64(1); seed <= n; seed++ {
		w := newWorld(seed, 3, []string{vip}, Profiles["default"])
		for _, id := range []string{"m0", "n4"} {
			w.add(id, 3)
		}
		for _, n := range w.nodes {
			n.cfg.Voters = []string{"n1", "n2", "n3"}
		}
		if wrong := chaos(w); wrong != "" {
			t.Fatalf("seed %d: %s\n%s", seed, wrong, w.report())
		}
	}
}

// Without names it holds as long as nobody forgets who the voters are.
func TestNeverTwoHoldersWithLateSurplus(t *testing.T) {
	n := uint64(*seedsFlag) / 4
	if testing.Short() {
		n = 50
	}
	for seed := uint64(1); seed <= n; seed++ {
		w := newWorld(seed, 3, []string{vip}, Profiles["default"])
		for _, n := range w.nodes {
			n.start()
		}
		w.run(3 * w.timing.Lease)
		for _, id := range []string{"m0", "n4"} {
			w.add(id, 3).start()
		}
		w.run(3 * w.timing.Lease)
		w.loyal = true
		if wrong := chaos(w); wrong != "" {
			t.Fatalf("seed %d: %s\n%s", seed, wrong, w.report())
		}
	}
}
