package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/e2e/lab"
	"github.com/sallyport/sallyport/steer"
)

func (w *world) awaitDropped(j int, reason string, more uint64) {
	w.t.Helper()
	w.await(func() error {
		if n := w.dropped(lab.Agent, j)[reason].Packets; n < more {
			return fmt.Errorf("n%d counted %d %s, want %d", j, n, reason, more)
		}
		return nil
	})
}

// tracked are the connections from the pod to the partner that the node knows as a
// node: as a gateway it has a zone of its own.
func (w *world) tracked(j int, pod netip.Addr) string {
	w.t.Helper()
	out, err := w.Exec(lab.NodeName(j), "conntrack", "-L", "--zone", "0", "-s", pod.String(), "-d", partner.String())
	w.must(err)
	if strings.Contains(out, " 0 flow entries") {
		return ""
	}
	return out
}

// young is a pod that runs and that no manifest names.
func (w *world) young(name string, node int) *lab.Pod {
	w.t.Helper()
	p, err := w.AddPod(lab.PodSpec{Name: name, Node: node, Unlisted: true})
	w.must(err)
	return p
}

// A pod that connects as its first act, before anybody has heard of it, is kept until
// it is known: then its next try leaves by the VIP.
func TestFirstPacketsWaitUntilThePodIsKnown(t *testing.T) {
	t.Parallel()
	for _, netfilter := range []string{"nftables", "iptables"} {
		t.Run(netfilter, func(t *testing.T) {
			t.Parallel()
			w := start(t, lab.Options{Netfilter: netfilter, GatewayArgs: unhurried})
			w.holder()
			w.seenEventually(selected(1), partner, theVIP)
			before := w.dropped(lab.Agent, 1)[steer.Unknown].Packets
			pod := w.young("young", 1)
			connects, err := w.StartConnects("young", partner, 20*time.Millisecond)
			w.must(err)
			echo, err := w.StartEcho("young", partner, 20*time.Millisecond)
			w.must(err)
			w.awaitDropped(1, steer.Unknown, before+20)
			w.sees("young", lab.PublicAddr, w.NodeIP(1)) // no route's destination
			if left := w.tracked(1, pod.Addr); left != "" {
				t.Errorf("what was held back is tracked: %s", left)
			}
			w.noLeak()

			w.must(w.Annotate("young", "payments"))
			known := time.Now()
			w.await(func() error {
				if echo.Report().Sources()[theVIP] == 0 {
					return errors.New("the datagrams are not answered")
				}
				return nil
			})
			w.await(func() error { // those that waited, too: a SYN is retried after a second
				waited := 0
				for i, e := range connects.Report().Exchanges {
					if ago := known.Sub(e.Sent); ago > 0 && ago < time.Second { // older ones may be given up by then
						waited++
						if e.Answered.IsZero() {
							return fmt.Errorf("connection %d, tried %v before the pod was known, is not there: %v", i, ago, e.Err)
						}
					}
				}
				if waited == 0 {
					t.Error("no connection waited")
				}
				return nil
			})
			for source := range connects.Stop().Sources() {
				if source != theVIP {
					t.Errorf("a connection came as %s", source)
				}
			}
			echo.Stop()
			w.noLeak()

			// One that nothing selects goes its own way once it is known.
			w.young("plain", 2)
			w.silent("plain")
			w.noLeak()
			w.must(w.Annotate("plain", ""))
			w.await(func() error {
				_, _ = w.SeenAs("plain", partner, 100*time.Millisecond)
				if refused, err := w.Partner.Refused(); err != nil || len(refused) == 0 {
					return errors.New("the partner has not refused it")
				}
				return nil
			})
		})
	}
}

const publicRoute = `
vip: 192.0.2.10
namespaceSelector: {}
destinations:
- cidr: 203.0.113.9/32
  ports: [{protocol: TCP, port: 8443}]
`

// awaitSilent waits until the pod reaches nobody at the address.
func (w *world) awaitSilent(pod string, to netip.Addr) {
	w.t.Helper()
	w.await(func() error {
		if as, err := w.SeenAs(pod, to, 300*time.Millisecond); err == nil {
			return fmt.Errorf("%s reaches %s as %s", pod, to, as)
		}
		return nil
	})
}

func TestFailClosedFalseLetsFirstPacketsGo(t *testing.T) {
	t.Parallel()
	w := start(t, lab.Options{GatewayArgs: unhurried})
	w.holder()
	w.young("young", 1)
	w.must(w.Manifests.WriteRoute("public", publicRoute))
	w.awaitSilent("young", lab.PublicAddr)
	w.must(w.Manifests.WriteRoute("public", publicRoute+"failClosed: false\n"))
	w.seenEventually("young", lab.PublicAddr, w.NodeIP(1))
	w.silent("young") // the other route still does
	w.noLeak()
	w.must(w.Annotate("young", "public"))
	w.seenEventually("young", lab.PublicAddr, theVIP)
}

func TestExclusiveKeepsOthersOut(t *testing.T) {
	t.Parallel()
	for _, netfilter := range []string{"nftables", "iptables"} {
		t.Run(netfilter, func(t *testing.T) {
			t.Parallel()
			w := start(t, lab.Options{Netfilter: netfilter, GatewayArgs: unhurried})
			w.holder()
			w.must(w.Annotate(selected(1), "payments,public"))
			w.must(w.Manifests.WriteRoute("public", publicRoute))
			w.seenEventually(selected(1), lab.PublicAddr, theVIP)
			w.sees(unselected(1), lab.PublicAddr, w.NodeIP(1))
			w.must(w.Manifests.WriteRoute("public", publicRoute+"exclusive: true\n"))
			w.await(func() error { // a busy machine may be the reason for a silence
				w.awaitSilent(unselected(1), lab.PublicAddr)
				if w.dropped(lab.Agent, 1)[steer.NotSelected].Packets == 0 {
					return errors.New("nothing is kept out")
				}
				return nil
			})
			kept := w.status(lab.Agent, 1)
			if all, own := kept.Dropped[steer.NotSelected].Packets, kept.KeptOut["default"].Packets; own != all || len(kept.KeptOut) != 1 {
				t.Errorf("of %d packets kept out %v are told of by namespace: all are of default's pods", all, kept.KeptOut)
			}
			w.awaitSilent(selected(2), lab.PublicAddr) // by another route than this one
			w.sees(selected(1), lab.PublicAddr, theVIP)
			for from, want := range map[string]netip.Addr{"n1": w.NodeIP(1), unselected(1): w.NodeIP(1)} { // the node, and another port
				if got := w.fetched(from, 8080); got != want.String() {
					t.Errorf("%s is seen on port 8080 as %s, want %s", from, got, want)
				}
			}
			if got := w.fetched("n1", lab.TCPPort); got == "" {
				t.Error("the node itself does not reach the exclusive port")
			}
			w.must(w.Manifests.WriteRoute("public", publicRoute))
			w.seenEventually(unselected(1), lab.PublicAddr, w.NodeIP(1))
		})
	}
}

// fetched is what the public address answers to a request from a host; of a port that
// speaks no HTTP it is the error.
func (w *world) fetched(from string, port int) string {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	_, body, err := w.Fetch(ctx, from, fmt.Sprintf("http://%s:%d/", lab.PublicAddr, port))
	switch {
	case err == nil:
		return strings.TrimSpace(string(body))
	case os.IsTimeout(err):
		return ""
	}
	return err.Error() // it answered
}

// A reply belongs to whoever asked: a partner that connects to a pod gets its answers,
// known or not.
func TestRepliesOfUnknownPodsAreNotHeld(t *testing.T) {
	t.Parallel()
	w := start(t, lab.Options{GatewayArgs: unhurried})
	pod := w.young("young", 1)
	w.must(w.Manifests.WriteRoute("public", strings.Split(publicRoute, "  ports")[0]))
	w.awaitSilent("young", lab.PublicAddr)
	_, err := w.Exec(lab.Router, "ip", "route", "add", "10.244.1.0/24", "via", w.NodeIP(1).String())
	w.must(err)
	if _, err := w.Exec(lab.PartnerHost, "ping", "-c", "1", "-W", "3", "-I", lab.PublicAddr.String(), pod.Addr.String()); err != nil {
		t.Errorf("no answer from the pod: %v", err)
	}
	w.awaitSilent("young", lab.PublicAddr)
}

// What an agent left in the kernel holds back while it is dead.
func TestNewPodsWaitForADeadAgent(t *testing.T) {
	t.Parallel()
	w := start(t, lab.Options{GatewayArgs: unhurried})
	w.holder()
	w.seenEventually(selected(1), partner, theVIP)
	w.must(w.agent(1).Kill())
	w.young("young", 1)
	w.must(w.Annotate("young", "payments"))
	w.silent("young")
	w.sees("young", lab.PublicAddr, w.NodeIP(1))
	w.noLeak()
	_, err := w.StartAgent(1)
	w.must(err)
	w.seenEventually("young", partner, theVIP)
	if w.dropped(lab.Agent, 1)[steer.Unknown].Packets == 0 {
		t.Error("what was held back while the agent was dead is not counted")
	}
	w.noLeak()
}
