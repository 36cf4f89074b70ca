package e2e

import (
	"errors"
	"fmt"
	"testing"

	"github.com/sallyport/sallyport/e2e/lab"
)

// What the view ends, a gateway refuses at once, though its node goes on to send.
func TestAGatewayEndsWhatGoesBesideNetfilter(t *testing.T) {
	for _, c := range []struct {
		what string
		end  func(w *world) error
		gone func(w *world) bool
	}{
		{"route", func(w *world) error { return w.Manifests.Remove("EgressRoute", "", "payments") },
			func(w *world) bool { return len(w.status(lab.Gateway, 1).Routes) == 0 }},
		{"pod", func(w *world) error { return w.Manifests.Remove("Pod", "default", selected(2)) },
			func(w *world) bool { return len(w.status(lab.Gateway, 1).Pods) == 1 }},
	} {
		t.Run(c.what, func(t *testing.T) {
			w := start(t, lab.Options{Nodes: 2, GatewayNodes: []int{1}, GatewayArgs: fastPath})
			w.seenEventually(selected(2), partner, theVIP)
			s := w.speaker(selected(2))
			w.speak(s, func() error {
				if f := w.besideAt(1); f.PacketsOut < 100 || f.PacketsIn < 100 || f.Flows == 0 {
					return fmt.Errorf("%+v went beside netfilter", f)
				}
				return nil
			})
			if w.remembered(1, selected(2)) == 0 {
				t.Fatal("the gateway's programs do not know what goes by them")
			}
			w.must(w.agent(2).Pause())
			w.must(c.end(w))
			var before uint64
			w.speak(s, func() error {
				now := w.besideAt(1)
				if !c.gone(w) || now.Flows > 0 || now.PacketsOut != before {
					before = now.PacketsOut
					return fmt.Errorf("%+v after the %s", now, c.what)
				}
				return nil
			})
			w.isForgotten(selected(2)) // and not only without a lease
			for range 100 {
				_, _ = s.Write([]byte("hello"))
			}
			if now := w.besideAt(1).PacketsOut; now != before {
				t.Errorf("%d packets went beside netfilter after the %s", now-before, c.what)
			}
			w.must(w.agent(2).Continue())
		})
	}
}

// A pod of the gateway's own node has no tunnel packets that could be opened where they come in.
func TestWhatAGatewayLeavesToNetfilter(t *testing.T) {
	w := start(t, lab.Options{Nodes: 2, GatewayNodes: []int{1}, GatewayArgs: fastPath})
	w.seenEventually(selected(1), partner, theVIP)
	s, sent := w.speaker(selected(1)), 0
	w.speak(s, func() error {
		if sent++; sent < 50 {
			return errors.New("not yet enough")
		}
		return nil
	})
	if f := w.besideAt(1); f.PacketsOut != 0 || f.PacketsIn != 0 {
		t.Errorf("of a pod of the gateway's node %+v went beside netfilter", f)
	}
}
