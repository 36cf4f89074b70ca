package e2e

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/e2e/lab"
	"github.com/sallyport/sallyport/flows/conntrack"
)

const gatewayZone = 51

// kept are the connections of the zone on a node that a standby is to have, by
// their original tuple.
func (w *world) kept(j int) map[conntrack.Tuple]conntrack.Entry {
	w.t.Helper()
	ns, err := w.Namespace(lab.NodeName(j))
	w.must(err)
	found := map[conntrack.Tuple]conntrack.Entry{}
	w.must(ns.Do(func() error {
		_, err := conntrack.Dump(conntrack.IPv4, conntrack.Mark{}, func(e *conntrack.Entry) bool {
			open := e.Original.Protocol != unix.IPPROTO_TCP || e.TCPState == conntrack.TCPEstablished
			if e.Zone == gatewayZone && e.Reply.Dst == theVIP && open && e.Status&conntrack.SeenReply != 0 {
				found[e.Original] = *e
			}
			return false
		})
		return err
	}))
	return found
}

// inStep waits until every replica's kernel among the nodes has the holder's
// connections, translated the same, and no other.
func (w *world) inStep(holder int, nodes ...int) map[conntrack.Tuple]conntrack.Entry {
	w.t.Helper()
	var held map[conntrack.Tuple]conntrack.Entry
	w.await(func() error {
		held = w.kept(holder)
		for _, j := range nodes {
			has := w.kept(j)
			for t, e := range held {
				if got, ok := has[t]; !ok || got.Reply != e.Reply || got.Mark != e.Mark {
					return fmt.Errorf("n%d has %s as %+v, n%d, which holds, as %+v", j, t, got, holder, e)
				}
			}
			if len(has) != len(held) {
				return fmt.Errorf("n%d has %d connections, n%d, which holds, %d", j, len(has), holder, len(held))
			}
		}
		return nil
	})
	return held
}

// talk is a pod's UDP socket that asks the partner's echo.
type talk struct {
	w    *world
	pod  string
	conn *net.UDPConn
}

func (w *world) talk(pod string, port int) *talk {
	w.t.Helper()
	t := &talk{w: w, pod: pod}
	ns, err := w.Namespace(pod)
	w.must(err)
	w.must(ns.Do(func() error {
		t.conn, err = net.DialUDP("udp4", &net.UDPAddr{Port: port}, net.UDPAddrFromAddrPort(netip.AddrPortFrom(partner, lab.UDPPort)))
		return err
	}))
	w.t.Cleanup(func() { _ = t.conn.Close() })
	return t
}

// ask asks until there is an answer, which says whom the partner saw.
func (t *talk) ask() (seen string) {
	t.w.t.Helper()
	t.w.await(func() error {
		if _, err := t.conn.Write([]byte("?")); err != nil {
			return err
		}
		_ = t.conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		buf := make([]byte, 256)
		n, err := t.conn.Read(buf)
		seen = strings.TrimPrefix(string(buf[:n]), "?")
		return err
	})
	return seen
}

func (w *world) ping(pod, id string) {
	w.t.Helper()
	w.await(func() error {
		_, err := w.Exec(pod, "ping", "-c1", "-W1", "-e", id, partner.String())
		return err
	})
}

// TestConnectionsSurviveTheHolder: each of a request and its answer, of a partner that
// talks first, of UDP and of ping goes on with the source that the partner knows,
// also where two pods use the same port, after the holder's power is cut.
func TestConnectionsSurviveTheHolder(t *testing.T) {
	for _, netfilter := range []string{"nftables", "iptables"} {
		t.Run(netfilter, func(t *testing.T) {
			w := start(t, lab.Options{Netfilter: netfilter})
			holder := w.holder()
			rest := w.Others(holder)
			const clash = 21000
			var asking, pushed []*lab.Stream
			var talks []*talk
			var seen []string
			for _, j := range rest {
				w.seenEventually(selected(j), partner, theVIP)
				s, err := w.StartStreamFrom(selected(j), clash, partner, 5*time.Millisecond)
				w.must(err)
				p, err := w.StartListeningFrom(selected(j), clash+1, partner)
				w.must(err)
				asking, pushed = append(asking, s), append(pushed, p)
				u := w.talk(selected(j), clash+2)
				u.ask() // answered
				talks, seen = append(talks, u), append(seen, u.ask())
				w.ping(selected(j), "4711")
			}
			if asking[0].Source() == asking[1].Source() || seen[0] == seen[1] {
				t.Fatalf("no clash to test: seen as %s and %s", asking[0].Source(), seen[0])
			}
			before := w.inStep(holder, rest...)
			if want := 2 * (3 + 1); len(before) < want {
				t.Fatalf("%d connections, want at least %d", len(before), want)
			}

			cut, err := w.PowerCut(holder)
			w.must(err)
			heir := w.awaitHolder(rest...)
			for i := range rest {
				for what, s := range map[string]*lab.Stream{"asking": asking[i], "pushed": pushed[i]} {
					w.await(func() error {
						if d, ok := s.Report().NextReply(cut); ok {
							t.Logf("%s stream of %s: first answer to what was sent after the cut %v after it", what, selected(rest[i]), d.Round(time.Millisecond))
							return nil
						}
						return fmt.Errorf("the %s stream of %s has no answer, broken: %v", what, selected(rest[i]), s.Broken())
					})
				}
				if now := talks[i].ask(); now != seen[i] {
					t.Errorf("the partner sees the UDP flow of %s as %s, before as %s", selected(rest[i]), now, seen[i])
				}
				w.ping(selected(rest[i]), "4711")
			}
			after := w.kept(heir)
			for tuple, e := range before {
				if now, ok := after[tuple]; !ok || now.Reply != e.Reply {
					t.Errorf("%s was seen as %s, now there is %t %s", tuple, e.Reply, ok, now.Reply)
				}
				if now := after[tuple]; now.Timeout > 5*24*time.Hour || tuple.Protocol != unix.IPPROTO_TCP && now.Timeout > 10*time.Minute {
					t.Errorf("%s has a standby's timeout on its holder: %s", tuple, now.Timeout)
				}
			}
			for _, s := range slices.Concat(asking, pushed) {
				if s.Stop(); s.Broken() != nil {
					t.Errorf("a connection broke: %v", s.Broken())
				}
			}
			w.noLeak()
			w.oneHolder()
		})
	}
}

// TestADeletedPodsConnectionsEndEverywhere, and a deleted route's.
func TestADeletedPodsConnectionsEndEverywhere(t *testing.T) {
	t.Parallel()
	w := start(t, lab.Options{GatewayArgs: unhurried})
	holder := w.holder()
	w.must(w.Manifests.WriteRoute("kyc", strings.ReplaceAll(payments, "203.0.113.5/32", lab.PublicAddr.String()+"/32")))
	w.must(w.Annotate(selected(2), "payments,kyc"))
	w.seenEventually(selected(1), partner, theVIP)
	w.seenEventually(selected(2), lab.PublicAddr, theVIP)
	for _, to := range []netip.Addr{partner, lab.PublicAddr} {
		for _, j := range []int{1, 2} {
			if j == 1 && to != partner {
				continue
			}
			s, err := w.StartListening(selected(j), to)
			w.must(err)
			defer s.Stop()
		}
	}
	all := w.inStep(holder, w.Others(holder)...)
	of := func(about func(conntrack.Tuple) bool) (n int) {
		for tuple := range all {
			if about(tuple) {
				n++
			}
		}
		return n
	}
	pod, err := w.Pod(selected(1))
	w.must(err)
	pods := func(tuple conntrack.Tuple) bool { return tuple.Src == pod.Addr }
	routes := func(tuple conntrack.Tuple) bool { return tuple.Dst == lab.PublicAddr }
	if of(pods) == 0 || of(routes) == 0 {
		t.Fatalf("nothing to end: %v", all)
	}
	goneEverywhere := func(about func(conntrack.Tuple) bool) {
		t.Helper()
		w.await(func() error {
			for _, j := range w.Options.GatewayNodes {
				for tuple := range w.kept(j) {
					if about(tuple) {
						return fmt.Errorf("n%d still has %s", j, tuple)
					}
				}
			}
			return nil
		})
	}
	w.must(w.Manifests.Remove("Pod", pod.Namespace, pod.Name))
	goneEverywhere(pods)
	w.must(w.Manifests.Remove("EgressRoute", "", "kyc"))
	goneEverywhere(routes)
	all = w.inStep(holder, w.Others(holder)...)
	if of(func(tuple conntrack.Tuple) bool { return !pods(tuple) && !routes(tuple) }) == 0 {
		t.Error("the connections of others ended, too")
	}
}

// TestAJoinerCatchesUp: a rebooted node has an empty kernel, and soon all connections
// again; and could take over then.
func TestAJoinerCatchesUp(t *testing.T) {
	w := start(t, lab.Options{})
	holder := w.holder()
	rest := w.Others(holder)
	w.seenEventually(selected(holder), partner, theVIP)
	s, err := w.StartListening(selected(holder), partner)
	w.must(err)
	if n := len(w.inStep(holder, rest...)); n == 0 {
		t.Fatal("no connections")
	}
	joiner, other := rest[0], rest[1]
	w.must(w.Reboot(joiner))
	if n := len(w.kept(joiner)); n != 0 {
		t.Fatalf("%d connections after a reboot", n)
	}
	w.restart(joiner)
	w.inStep(holder, rest...)
	// Now the joiner is the only one left to take over.
	w.must(w.gateway(other).Pause())
	w.must(w.gateway(other).Continue())
	w.must(w.gateway(holder).Kill())
	heir := w.awaitHolder(rest...)
	w.goesOn(s)
	w.restartGateway(holder)
	w.inStep(heir, w.Others(heir)...)
	w.must(w.gateway(heir).Kill())
	w.awaitHolder(w.Others(heir)...)
	w.goesOn(s)
	s.Stop()
	w.noLeak()
	w.oneHolder()
}

// TestAStoppedStandbyHurtsNobody: the holder, the other standby and the traffic do not
// notice it; and it catches up when it goes on.
func TestAStoppedStandbyHurtsNobody(t *testing.T) {
	t.Parallel()
	// A busy machine is to take no vote from the two that are left.
	w := start(t, lab.Options{GatewayArgs: []string{"--timing", "wan"}})
	holder := w.holder()
	slow, fast := w.Others(holder)[0], w.Others(holder)[1]
	w.seenEventually(selected(fast), partner, theVIP)
	s, err := w.StartStream(selected(fast), partner, 5*time.Millisecond)
	w.must(err)
	w.inStep(holder, slow, fast)

	w.must(w.gateway(slow).Pause())
	stopped := time.Now()
	c, err := w.StartConnects(selected(fast), partner, 2*time.Millisecond)
	w.must(err)
	// Five seconds of it as the holder's own clock has them: the standby's lag.
	w.await(func() error {
		for _, standby := range w.status(lab.Gateway, holder).VIPs[0].Replication.Standbys {
			switch {
			case standby.Name == lab.NodeName(slow) && standby.LagSeconds < 5:
				return fmt.Errorf("n%d lags by %.1f s", slow, standby.LagSeconds)
			case standby.Name == lab.NodeName(fast) && standby.LagSeconds > 2:
				return fmt.Errorf("n%d, which is not stopped, lags by %.1f s", fast, standby.LagSeconds)
			}
		}
		return nil
	})
	w.goesOn(s)
	c.Stop()
	held := w.inStep(holder, fast)
	if len(held) == 0 {
		t.Error("no connections")
	}
	w.must(w.gateway(slow).Continue())
	w.inStep(holder, slow, fast)
	if now := w.holder(); now != holder {
		t.Errorf("n%d took over from n%d", now, holder)
	}
	report := s.Stop()
	t.Logf("longest stall of the stream %v in %v", report.LongestGap().Length().Round(time.Millisecond), time.Since(stopped).Round(time.Second))
	if err := errors.Join(s.Broken()); err != nil {
		t.Errorf("the stream broke: %v", err)
	}
	w.noLeak()
}
