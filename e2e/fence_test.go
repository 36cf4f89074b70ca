package e2e

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/sallyport/sallyport/e2e/hang"
	"github.com/sallyport/sallyport/e2e/lab"
)

// TestADeadHolderIsSilent: from the moment another claims, nobody else answers for the VIP on the
// partner's segment, and what was the holder sends nothing as the VIP, also when it
// goes on. Its kernel has the address all the time, and traffic to forward.
func TestADeadHolderIsSilent(t *testing.T) {
	for _, f := range []struct {
		name   string
		strike func(w *world, holder int) (goOn func())
	}{
		{"stopped", func(w *world, holder int) func() {
			w.must(w.gateway(holder).Pause())
			return func() { w.must(w.gateway(holder).Continue()) }
		}},
		{"killed", func(w *world, holder int) func() {
			w.must(w.gateway(holder).Kill())
			return func() { w.restartGateway(holder) }
		}},
		{"hung while it renews", func(w *world, holder int) func() {
			h, err := hang.Renewal(w.gateway(holder).Pid, theVIP.String())
			w.must(err)
			return func() { w.must(h.LetGo()) }
		}},
		{"hung while it renews, and again when it has", func(w *world, holder int) func() {
			h, err := hang.Renewal(w.gateway(holder).Pid, theVIP.String())
			w.must(err)
			return func() {
				w.must(h.Finish())
				w.answered(time.Now(), 20)
				w.must(h.LetGo())
			}
		}},
	} {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel() // with each other, and nobody else
			// A busy machine is to take no lease by itself.
			w := start(t, lab.Options{Nodes: 4, GatewayNodes: []int{1, 2, 3}, GatewayArgs: slices.Concat(unhurried, fastPath), AgentArgs: fastPath})
			holder := w.holder()
			// The agent there would take the dead gateway's address away, which is not looked at here.
			agent, err := w.Program(lab.Agent, holder)
			w.must(err)
			w.must(agent.Pause())
			w.seenEventually(selected(4), partner, theVIP)
			l := w.startLoad(4)
			w.passesBeside(holder)
			sent, err := w.WatchSource()
			w.must(err)
			struck := time.Now()
			goOn := f.strike(w, holder)
			var claimed time.Time
			w.await(func() error {
				for _, u := range w.arp.Utterances(theVIP) {
					if u.Node != holder && u.At.After(struck) {
						claimed = u.At
						return nil
					}
				}
				return fmt.Errorf("nobody but n%d speaks for the VIP", holder)
			})
			l.flows()
			goOn()
			heir := w.awaitHolder(w.Others(holder)[:2]...)
			w.await(func() error { // it has understood
				if v := w.status(lab.Gateway, holder).VIPs[0]; v.Held || v.Holder != lab.NodeName(heir) {
					return fmt.Errorf("n%d takes %q for the holder", holder, v.Holder)
				}
				return nil
			})
			l.flows()
			w.arp.Stop()
			sent.Stop()
			for _, u := range w.arp.Utterances(theVIP) {
				// What was asked before is answered late on a busy machine.
				if u.Node == holder && (u.Answer && u.Asked.After(claimed) || u.At.After(claimed.Add(lab.Settle))) {
					t.Errorf("n%d spoke for the VIP %v after n%d claimed it", holder, u.At.Sub(claimed), heir)
				}
			}
			if late := sent.Since(holder, claimed.Add(lab.Settle)); len(late) > 0 {
				t.Errorf("n%d sent %d packets as the VIP after n%d claimed it, the last %v after", holder, len(late), heir, late[len(late)-1].At.Sub(claimed))
			}
			if len(sent.Since(heir, claimed)) == 0 {
				t.Errorf("no packet of n%d was seen: the watch is deaf", heir)
			}
			w.must(agent.Continue())
			for _, e := range l.echo {
				e.Stop()
			}
			for i, s := range l.streams {
				if s.Stop(); s.Broken() != nil {
					t.Errorf("connection %d broke: %v", i, s.Broken())
				}
			}
			w.noLeak()
			w.oneHolder()
		})
	}
}

// answered waits until so many questions were answered that were asked after the moment.
func (w *world) answered(after time.Time, times int) {
	w.t.Helper()
	w.await(func() error {
		n := 0
		for _, u := range w.arp.Utterances(theVIP) {
			if u.Answer && u.Asked.After(after) {
				n++
			}
		}
		if n < times {
			return fmt.Errorf("%d of %d questions were answered", n, times)
		}
		return nil
	})
}
