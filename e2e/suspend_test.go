package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/e2e/lab"
)

// TestAHostThatWakesUpIsSilent stands for a holder's host that is suspended and wakes up when another
// holds. No machine of tests can be suspended, but what differs from a program that is stopped
// can be made: the kernel's timeouts stood still, so that the fence is open for as long as it
// was when the host fell asleep; the clock of the leases did not. The program is stopped, another
// gateway claims, the fence is put back by hand as it would be found, for longer than any test
// takes, and the program goes on: it has to close it, and must not announce, renew or send before.
//
// Between the kernel's waking and the program's first turn the host answers, as it would in
// truth: nothing runs there that could keep it from that.
func TestAHostThatWakesUpIsSilent(t *testing.T) {
	t.Parallel()
	w := start(t, lab.Options{Nodes: 4, GatewayNodes: []int{1, 2, 3}, GatewayArgs: unhurried})
	holder := w.holder()
	w.seenEventually(selected(4), partner, theVIP)
	agent, err := w.Program(lab.Agent, holder) // it sleeps as well
	w.must(err)
	w.must(agent.Pause())
	w.must(w.gateway(holder).Pause())
	heir := w.awaitHolder(w.Others(holder)[:2]...)
	w.await(func() error {
		if owner := w.arp.Owner(theVIP, time.Second); owner != heir {
			return fmt.Errorf("n%d answers, want n%d", owner, heir)
		}
		return nil
	})
	families := []string{"netdev", "ip", "arp"}
	open := func() (in []string) {
		for _, family := range families {
			out, err := w.Exec(lab.NodeName(holder), "nft", "list", "set", family, "sally_fence", "held")
			w.must(err)
			if strings.Contains(out, theVIP.String()) {
				in = append(in, family)
			}
		}
		return in
	}
	w.await(func() error {
		if in := open(); len(in) > 0 {
			return fmt.Errorf("the fence has not closed: %v", in)
		}
		return nil
	})
	slept := time.Now()
	for _, family := range families {
		_, err := w.Exec(lab.NodeName(holder), "nft", "add", "element", family, "sally_fence", "held", "{ "+theVIP.String()+" timeout 1h }")
		w.must(err)
	}
	if in := open(); len(in) != len(families) {
		t.Fatalf("the fence is open in %v, want all", in)
	}
	sent, err := w.WatchSource()
	w.must(err)
	w.must(w.gateway(holder).Continue())
	w.await(func() error {
		if in := open(); len(in) > 0 {
			return fmt.Errorf("n%d has woken up and leaves its fence open: %v", holder, in)
		}
		return nil
	})
	closed := time.Now()
	w.await(func() error {
		if v := w.status(lab.Gateway, holder).VIPs[0]; v.Held || v.Holder != lab.NodeName(heir) {
			return fmt.Errorf("n%d takes %q for the holder", holder, v.Holder)
		}
		return nil
	})
	w.answered(time.Now(), 100)
	w.arp.Stop()
	sent.Stop()
	for _, u := range w.arp.Utterances(theVIP) {
		if u.Node != holder || u.At.Before(slept) {
			continue
		}
		if !u.Answer {
			t.Errorf("n%d announced the VIP %v after it was put back", holder, u.At.Sub(slept))
		} else if u.Asked.After(closed) {
			t.Errorf("n%d answered %v after its fence had closed", holder, u.At.Sub(closed))
		}
	}
	if late := sent.Since(holder, closed.Add(lab.Settle)); len(late) > 0 {
		t.Errorf("n%d sent %d packets as the VIP after its fence had closed", holder, len(late))
	}
	if now := w.holder(); now != heir {
		t.Errorf("n%d holds, it was n%d: a host that wakes up is no reason to move", now, heir)
	}
	w.must(agent.Continue())
	w.seenEventually(selected(4), partner, theVIP)
	w.noLeak()
}
