package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/e2e/lab"
	"github.com/sallyport/sallyport/steer"
)

// awaitSelected waits until node j's agent steers the pod, or does not.
func (w *world) awaitSelected(j int, pod string, want bool) {
	w.t.Helper()
	w.await(func() error {
		got := false
		for _, p := range w.status(lab.Agent, j).Pods {
			got = got || p.Name == pod
		}
		if got != want {
			return fmt.Errorf("%s is steered: %t, want %t", pod, got, want)
		}
		return nil
	})
}

// A deleted pod's address is worth nothing to the next pod, though no manifest says
// yet that it is deleted.
func TestAnAddressIsWorthNothingOnceItsPodIsGone(t *testing.T) {
	t.Parallel()
	for name, routed := range map[string]bool{"bridge": false, "route": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, lab.Options{GatewayArgs: unhurried})
			if routed { // before an agent has seen it elsewhere: such a move takes ten seconds
				w.must(w.RoutePod(selected(2)))
			}
			w.begin()
			w.holder()
			w.seenEventually(selected(2), partner, theVIP)
			s, err := w.StartStream(selected(2), partner, 5*time.Millisecond)
			w.must(err)
			old, err := w.Pod(selected(2))
			w.must(err)
			s.Stop()
			w.must(w.LosePod(selected(2)))
			w.awaitSelected(2, selected(2), false)
			w.await(func() error {
				if left := w.tracked(2, old.Addr); left != "" {
					return fmt.Errorf("its connections are still there: %s", left)
				}
				return nil
			})
			held := w.dropped(lab.Agent, 2)[steer.Unknown].Packets

			heir, err := w.AddPod(lab.PodSpec{Name: "heir", Node: 2, Addr: old.Addr, Unlisted: true})
			w.must(err)
			if routed {
				w.must(w.RoutePod("heir"))
			}
			w.silent("heir")
			w.awaitDropped(2, steer.Unknown, held+1)
			w.sees("heir", lab.PublicAddr, w.NodeIP(2))
			w.noLeak()

			last := old.Manifest()
			last.Deleting = true
			w.must(w.Manifests.WritePod(last))
			w.must(w.Annotate("heir", "payments")) // both are in the view now
			w.seenEventually("heir", partner, theVIP)
			s, err = w.StartListening("heir", partner) // who talks first is refused without an entry
			w.must(err)
			w.must(w.Manifests.Remove("Pod", "default", selected(2)))
			w.must(w.Manifests.WriteRoute("public", publicRoute))
			w.must(w.Annotate(unselected(2), "public"))
			w.seenEventually(unselected(2), lab.PublicAddr, theVIP) // so everybody has seen that it is gone
			w.goesOn(s)
			w.sees("heir", partner, theVIP)
			if heir.UID == old.UID {
				t.Error("the heir has the old pod's UID")
			}
			w.noLeak()
		})
	}
}

// A link that flaps, or a route that is written anew, does not cost a live pod more
// than the moment.
func TestALivePodComesBack(t *testing.T) {
	t.Parallel()
	w := start(t, lab.Options{GatewayArgs: unhurried})
	w.holder()
	w.seenEventually(selected(1), partner, theVIP)
	port, err := w.PodPort(selected(1))
	w.must(err)
	ip := func(args ...string) {
		t.Helper()
		_, err := w.Exec("n1", "ip", args...)
		w.must(err)
	}
	ip("link", "set", port, "down")
	ip("link", "set", port, "up")
	w.seenEventually(selected(1), partner, theVIP)

	w.must(w.RoutePod(selected(3)))
	pod, err := w.Pod(selected(3))
	w.must(err)
	port, err = w.PodPort(selected(3))
	w.must(err)
	// It was behind the bridge, and its interface is still there.
	w.seenEventually(selected(3), partner, theVIP)
	w.must(w.agent(3).Stop()) // an agent that knows it by its route only
	_, err = w.StartAgent(3)
	w.must(err)
	w.await(w.ready(lab.Agent, 3))
	w.seenEventually(selected(3), partner, theVIP)
	_, err = w.Exec("n3", "ip", "route", "del", pod.Addr.String()+"/32", "dev", port)
	w.must(err)
	w.awaitSelected(3, selected(3), false)
	_, err = w.Exec("n3", "ip", "route", "add", pod.Addr.String()+"/32", "dev", port)
	w.must(err)
	w.awaitSelected(3, selected(3), true)
	w.seenEventually(selected(3), partner, theVIP)
	w.noLeak()
}

// A connection that was born before its pod had a route goes on as it was, but ends
// with the pod: the next one with the address would leave by it as the node.
func TestUnsteeredConnectionsEndWithTheirPod(t *testing.T) {
	t.Parallel()
	w := start(t, lab.Options{GatewayArgs: unhurried})
	w.holder()
	pod, err := w.Pod(unselected(2))
	w.must(err)
	// By the node: a gateway there has those of the pod's next connections in a zone of its own.
	tracked := func() (left string) {
		out, err := w.Exec("n2", "conntrack", "-L", "-s", pod.Addr.String(), "-d", lab.PublicAddr.String())
		w.must(err)
		for line := range strings.Lines(out) {
			if strings.Contains(line, "src=") && !strings.Contains(line, fmt.Sprintf("zone=%d", gatewayZone)) {
				left += line
			}
		}
		return left
	}
	s, err := w.StartStream(unselected(2), lab.PublicAddr, 5*time.Millisecond)
	w.must(err)
	w.must(w.Manifests.WriteRoute("public", publicRoute))
	w.must(w.Annotate(unselected(2), "public"))
	w.seenEventually(unselected(2), lab.PublicAddr, theVIP)
	if s.Broken() != nil || tracked() == "" {
		t.Fatalf("the connection ended with the route: %v", s.Broken())
	}
	s.Stop()
	w.must(w.LosePod(unselected(2)))
	w.await(func() error {
		if left := tracked(); left != "" {
			return fmt.Errorf("still tracked: %s", left)
		}
		return nil
	})
}
