package e2e

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/sallyport/sallyport/e2e/hang"
	"github.com/sallyport/sallyport/e2e/lab"
)

// TestAHungThreadIsNeverASecondHolder: one thread of the holder after the other hangs, whatever it
// was doing, and the rest go on: the runtime waits for some of them at once, for others
// never. At some point the holder is none any more; nobody but the new one answers from then on,
// also when the threads go on.
func TestAHungThreadIsNeverASecondHolder(t *testing.T) {
	w := start(t, lab.Options{Nodes: 4, GatewayNodes: []int{1, 2, 3}})
	w.seenEventually(selected(4), partner, theVIP)
	for _, j := range w.Options.GatewayNodes { // they would take a hung gateway's address away
		agent, err := w.Program(lab.Agent, j)
		w.must(err)
		w.must(agent.Pause())
	}
	for _, order := range []string{"from the first", "from the last"} {
		holder := w.holder()
		tried := map[int]bool{}
		var hanging []*hang.Hung
		for moved := false; !moved; {
			threads, err := hang.Threads(w.gateway(holder).Pid)
			w.must(err)
			if order == "from the last" {
				slices.Reverse(threads)
			}
			i := slices.IndexFunc(threads, func(tid int) bool { return !tried[tid] })
			if i < 0 {
				t.Fatalf("%s: all %d threads of n%d hang, and it holds on", order, len(hanging), holder)
			}
			tried[threads[i]] = true
			h, err := hang.Thread(w.gateway(holder).Pid, threads[i])
			if err != nil {
				t.Logf("thread %d has ended: %v", threads[i], err)
				continue
			}
			hanging = append(hanging, h)
			w.answered(time.Now().Add(500*time.Millisecond), 20) // some leases later
			said := w.arp.Utterances(theVIP)
			moved = said[len(said)-1].Node != holder
		}
		t.Logf("%s: with %d threads hung n%d held no longer", order, len(hanging), holder)
		for _, h := range hanging {
			w.must(h.LetGo())
			w.answered(time.Now(), 5)
		}
		w.await(func() error {
			now := w.holder()
			for _, j := range w.Options.GatewayNodes {
				if v := w.status(lab.Gateway, j).VIPs[0]; v.Holder != lab.NodeName(now) {
					return errors.New("the gateways do not agree on the holder")
				}
			}
			return nil
		})
	}
	w.arp.Stop()
	if v := w.arp.Proven(); len(v) > 0 {
		t.Errorf("two holders: %v (%d times)", v[0], len(v))
	}
	w.seenEventually(selected(4), partner, theVIP)
	w.noLeak()
}
