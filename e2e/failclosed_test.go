package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/e2e/lab"
	"github.com/sallyport/sallyport/tunnel"
)

func (w *world) agent(j int) *lab.Program {
	w.t.Helper()
	p, err := w.Program(lab.Agent, j)
	w.must(err)
	return p
}

// silent demands that the pod reaches nobody at the partner's, and that nothing of
// it arrived there under another name.
func (w *world) silent(pod string) {
	w.t.Helper()
	if as, err := w.SeenAs(pod, partner, 400*time.Millisecond); err == nil {
		w.t.Errorf("%s reached the partner as %s", pod, as)
	}
}

func TestFailClosedWithNoHolder(t *testing.T) {
	w := start(t, lab.Options{})
	w.seenEventually(selected(1), partner, theVIP)
	tr := w.startTraffic(1, 2, 3)
	for _, j := range w.Options.GatewayNodes {
		w.must(w.gateway(j).Kill())
	}
	w.await(func() error {
		holders, err := w.Holders(theVIP)
		if err == nil && len(holders) > 0 {
			err = fmt.Errorf("the VIP is still on %v", holders)
		}
		return err
	})
	for j := 1; j <= w.Options.Nodes; j++ {
		w.silent(selected(j))
		w.sees(unselected(j), lab.PublicAddr, w.NodeIP(j))
	}
	w.noLeak()
	for _, j := range w.Options.GatewayNodes {
		_, err := w.StartGateway(j)
		w.must(err)
	}
	w.flowsAgain(tr, time.Now())
	w.stop(tr)
	w.noLeak()
}

func TestFailClosedWithDeadAndRestartedAgents(t *testing.T) {
	t.Parallel()
	w := start(t, lab.Options{GatewayArgs: unhurried})
	w.holder()
	tr := w.startTraffic(1, 2, 3)
	for j := 1; j <= w.Options.Nodes; j++ {
		w.must(w.agent(j).Kill())
	}
	for j := 1; j <= w.Options.Nodes; j++ {
		w.sees(selected(j), partner, theVIP) // new connections too
	}
	w.flowsAgain(tr, time.Now())
	for range 3 {
		for j := 1; j <= w.Options.Nodes; j++ {
			_, err := w.StartAgent(j)
			w.must(err)
		}
		for j := 1; j <= w.Options.Nodes; j++ {
			w.await(w.ready(lab.Agent, j))
			w.must(w.agent(j).Stop())
		}
	}
	w.flowsAgain(tr, time.Now())
	w.stop(tr)
	w.noLeak()
}

func TestRestartWithoutTheSourceUsesTheSavedView(t *testing.T) {
	w := start(t, lab.Options{})
	w.holder()
	w.seenEventually(selected(1), partner, theVIP)
	w.await(func() error { // saved
		_, err := os.Stat(filepath.Join(w.Options.Dir, "state", "agent-n1", "agent-view.json"))
		return err
	})
	w.must(w.agent(1).Kill())
	w.cleanup(1)
	_, err := w.StartAgent(1, "--source", "dir:"+w.Manifests.Dir+"-gone")
	w.must(err)
	w.await(w.ready(lab.Agent, 1))
	w.sees(selected(1), partner, theVIP)
	if s := w.status(lab.Agent, 1); s.Live {
		t.Error("the status says that the source answers")
	}
	w.noLeak()
}

func TestAReusedAddressHasNoRights(t *testing.T) {
	t.Parallel()
	w := start(t, lab.Options{GatewayArgs: unhurried})
	w.holder()
	w.seenEventually(selected(2), partner, theVIP)
	old, err := w.Pod(selected(2))
	w.must(err)
	s, err := w.StartStream(selected(2), partner, 5*time.Millisecond)
	w.must(err)
	s.Stop()
	w.must(w.RemovePod(selected(2)))
	_, err = w.AddPod(lab.PodSpec{Name: "heir", Node: 2, Addr: old.Addr})
	w.must(err)
	w.await(func() error {
		for _, p := range w.status(lab.Agent, 2).Pods {
			if p.Addr == old.Addr {
				return errors.New("the address is still selected")
			}
		}
		return nil
	})
	w.seenEventually("heir", lab.PublicAddr, w.NodeIP(2))
	w.noLeak()
	// As any unselected pod it leaves as its node, which the partner refuses; until its node
	// knows that it is one, it is kept back.
	var refused []lab.Refusal
	w.await(func() error {
		as, err := w.SeenAs("heir", partner, 400*time.Millisecond)
		if err == nil {
			return fmt.Errorf("the heir reached the partner as %s", as)
		}
		if refused, err = w.Partner.Refused(); err == nil && len(refused) == 0 {
			err = errors.New("the partner has refused nothing")
		}
		return err
	})
	w.silent("heir")
	if len(refused) != 1 || refused[0].Source != w.NodeIP(2) {
		t.Errorf("refused %+v, want the node's address", refused)
	}
}

func TestConnectionsKeepThePathTheyWereBornWith(t *testing.T) {
	t.Parallel()
	w := start(t, lab.Options{GatewayArgs: unhurried})
	w.must(w.Manifests.WriteRoute("public", `
vip: 192.0.2.10
namespaceSelector: {}
destinations:
- cidr: 203.0.113.9/32
`))
	w.holder()
	plain, err := w.StartStream(unselected(1), lab.PublicAddr, 5*time.Millisecond)
	w.must(err)
	w.must(w.Annotate(unselected(1), "public"))
	w.seenEventually(unselected(1), lab.PublicAddr, theVIP) // new ones follow
	steered, err := w.StartStream(unselected(1), lab.PublicAddr, 5*time.Millisecond)
	w.must(err)
	w.must(w.Annotate(unselected(1), ""))
	w.seenEventually(unselected(1), lab.PublicAddr, w.NodeIP(1))
	after := time.Now()
	for _, s := range []*lab.Stream{plain, steered} {
		w.await(func() error {
			if at := s.Report().Answers(); len(at) == 0 || at[len(at)-1].Before(after) {
				return fmt.Errorf("no answer to %s, born as %s, broken: %v", s.Local(), s.Source(), s.Broken())
			}
			return nil
		})
		s.Stop()
		if s.Broken() != nil {
			t.Errorf("a connection broke when its pod's routes changed: %v", s.Broken())
		}
	}
	if plain.Source().Addr() != w.NodeIP(1) || steered.Source().Addr() != theVIP {
		t.Errorf("born as %s and %s", plain.Source(), steered.Source())
	}
}

// A client that retries forever from one port, as many UDP protocols do, must not be
// held to a decision that nobody ever answered.
func TestUnansweredFlowsFollowANewRoute(t *testing.T) {
	t.Parallel()
	w := start(t, lab.Options{GatewayArgs: unhurried})
	w.holder()
	e, err := w.StartEcho(unselected(3), partner, 5*time.Millisecond)
	w.must(err)
	w.await(func() error {
		if n, err := w.Partner.RefusedPackets(); err != nil || n == 0 {
			return fmt.Errorf("refused %d, %v", n, err)
		}
		return nil
	})
	w.must(w.Annotate(unselected(3), "payments"))
	w.await(func() error {
		if e.Report().Sources()[theVIP] == 0 {
			return errors.New("the flow is not answered: it was not steered")
		}
		return nil
	})
}

func (w *world) cleanup(j int) {
	w.t.Helper()
	_, err := w.Exec(lab.NodeName(j), binary, "cleanup")
	w.must(err)
}

func TestCleanupLeavesNothing(t *testing.T) {
	t.Parallel()
	for _, netfilter := range []string{"nftables", "iptables"} {
		t.Run(netfilter, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, lab.Options{Netfilter: netfilter})
			before := map[int]lab.HostState{}
			for j := 1; j <= w.Options.Nodes; j++ {
				s, err := w.HostState(lab.NodeName(j))
				w.must(err)
				before[j] = s
			}
			w.must(w.StartAll())
			w.awaitReady()
			w.seenEventually(selected(1), partner, theVIP)
			holder := w.holder()
			for j := 1; j <= w.Options.Nodes; j++ {
				w.must(w.gateway(j).Kill()) // not stopped: the holder leaves its address
				w.must(w.agent(j).Kill())
			}
			for j := 1; j <= w.Options.Nodes; j++ {
				s, err := w.HostState(lab.NodeName(j))
				w.must(err)
				if before[j].Diff(s) == "" {
					t.Errorf("n%d: nothing to clean up", j)
				}
				w.cleanup(j)
				s, err = w.HostState(lab.NodeName(j))
				w.must(err)
				if diff := before[j].Diff(s); diff != "" {
					t.Errorf("n%d (holder n%d) is not as before:\n%s", j, holder, diff)
				}
			}
		})
	}
}

// What had the VIP has it no more, and then leaves as the node, never as itself.
func TestCleanupEndsConnections(t *testing.T) {
	t.Parallel()
	for _, netfilter := range []string{"nftables", "iptables"} {
		t.Run(netfilter, func(t *testing.T) {
			t.Parallel()
			w := start(t, lab.Options{Netfilter: netfilter, GatewayArgs: unhurried})
			w.holder()
			w.seenEventually(selected(1), partner, theVIP)
			tr := w.startTraffic(1)
			w.must(w.gateway(1).Kill())
			w.must(w.agent(1).Kill())
			w.cleanup(1)
			var refused []lab.Refusal
			w.await(func() (err error) {
				refused, err = w.Partner.Refused()
				for _, protocol := range []string{"tcp", "udp"} {
					if err == nil && !slices.ContainsFunc(refused, func(r lab.Refusal) bool { return r.Protocol == protocol && r.Source == w.NodeIP(1) }) {
						err = fmt.Errorf("no packet of %s came as the node: %+v", protocol, refused)
					}
				}
				return err
			})
			tr.echo[0].Stop()
			tr.connects[0].Stop()
			tr.streams[0].Stop()
			for _, r := range refused {
				if r.Source != w.NodeIP(1) {
					t.Errorf("%d packets of %s came from %s", r.Packets, r.Protocol, r.Source)
				}
			}
		})
	}
}

// What another program has put in the place of our route keeps the pods of that node
// from the VIP, and from every other way; no other node minds.
func TestFailClosedWhereTheTunnelCannotBeMade(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lab.Options{GatewayArgs: unhurried})
	cfg := tunnel.DefaultConfig()
	slots, err := cfg.Marks.Slots([]netip.Addr{theVIP})
	w.must(err)
	table := strconv.Itoa(cfg.TableBase + slots[theVIP])
	_, err = w.Exec("n1", "ip", "route", "add", "default", "via", "192.0.2.254", "table", table)
	w.must(err)
	w.must(w.StartAll())
	for _, j := range []int{2, 3} {
		w.await(w.ready(lab.Agent, j))
	}
	w.await(func() error {
		if s := w.status(lab.Agent, 1); !strings.Contains(s.Apply.Error, "table "+table) || !strings.Contains(s.Apply.Error, "--table-base") {
			return fmt.Errorf("the status says %q, not what is in the way and what to do", s.Apply.Error)
		}
		return nil
	})
	w.holder()
	w.seenEventually(selected(2), partner, theVIP)
	w.silent(selected(1))
	w.noLeak()
	_, err = w.Exec("n1", "ip", "route", "del", "default", "table", table)
	w.must(err)
	w.seenEventually(selected(1), partner, theVIP)
	w.noLeak()
}
