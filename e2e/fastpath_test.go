package e2e

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/e2e/lab"
	"github.com/sallyport/sallyport/gateway/host"
)

var fastPath = []string{"--fast-path"}

// besideAt gives what a gateway says that went beside netfilter.
func (w *world) besideAt(j int) host.FastPath {
	w.t.Helper()
	s := w.status(lab.Gateway, j)
	if s.FastPath == nil || !s.FastPath.On {
		w.t.Fatalf("the gateway of n%d does not say that packets go beside netfilter: %+v, %v", j, s.FastPath, s.Problems)
	}
	return *s.FastPath
}

// passesBeside waits until a thousand packets more went each way through the gateway of a node, and looks that
// its route counts them.
func (w *world) passesBeside(j int) {
	w.t.Helper()
	before := w.besideAt(j)
	w.await(func() error {
		s := w.status(lab.Gateway, j)
		if now := s.FastPath; now == nil || now.PacketsOut < before.PacketsOut+1000 || now.PacketsIn < before.PacketsIn+1000 {
			return fmt.Errorf("the gateway of n%d: %+v, before %+v", j, now, before)
		}
		if s.Routes[0].Sent.Packets < s.FastPath.PacketsOut+s.FastPath.PacketsIn {
			w.t.Errorf("the route had %d packets, %+v of them beside netfilter", s.Routes[0].Sent.Packets, *s.FastPath)
		}
		return nil
	})
}

// beside gives what an agent says that went beside netfilter.
func (w *world) beside(j int) host.FastPath {
	w.t.Helper()
	f := w.status(lab.Agent, j).FastPath
	if f == nil || !f.On {
		w.t.Fatalf("the agent of n%d does not say that packets go beside netfilter: %+v, %v", j, f, w.status(lab.Agent, j).Problems)
	}
	return *f
}

// goesBeside waits until a thousand packets more went each way.
func (w *world) goesBeside(j int) {
	w.t.Helper()
	before := w.beside(j)
	w.await(func() error {
		if now := w.beside(j); now.PacketsOut < before.PacketsOut+1000 || now.PacketsIn < before.PacketsIn+1000 {
			return fmt.Errorf("n%d: %+v, before %+v", j, now, before)
		}
		return nil
	})
}

// bulk sends as much as it can until it is stopped, which tells what broke it.
func (w *world) bulk(pod string) (stop func() error) {
	w.t.Helper()
	c, err := w.Dial(pod, netip.AddrPortFrom(partner, lab.DiscardPort), patience)
	w.must(err)
	broke := make(chan error, 1)
	go func() {
		buf := make([]byte, 1<<16)
		for {
			if _, err := c.Write(buf); err != nil {
				broke <- err
				return
			}
		}
	}()
	return func() error {
		select {
		case err := <-broke:
			return err
		default:
			c.Close()
			<-broke
			return nil
		}
	}
}

// Bulk TCP, streams and datagrams go beside netfilter, from the holder's own node and from others,
// behind a bridge and behind a route, and nobody loses anything when the VIP moves or an
// agent dies. What conntrack calls invalid is dropped, as kube-proxy does.
func TestEstablishedConnectionsGoBesideNetfilter(t *testing.T) {
	t.Parallel()
	for _, netfilter := range []string{"nftables", "iptables"} {
		t.Run(netfilter, func(t *testing.T) {
			t.Parallel()
			w := start(t, lab.Options{Netfilter: netfilter, AgentArgs: fastPath, GatewayArgs: slices.Concat(unhurried, fastPath)})
			holder := w.holder()
			w.must(w.RoutePod(selected(w.Others(holder)[0])))
			for j := 1; j <= 3; j++ {
				_, err := w.Exec(lab.NodeName(j), "iptables", "-I", "FORWARD", "-m", "conntrack", "--ctstate", "INVALID", "-j", "DROP")
				w.must(err)
			}
			for j := 1; j <= 3; j++ {
				w.seenEventually(selected(j), partner, theVIP)
				stop := w.bulk(selected(j))
				w.goesBeside(j)
				if j != holder {
					w.passesBeside(holder)
				}
				if err := stop(); err != nil {
					t.Errorf("bulk from n%d broke: %v", j, err)
				}
			}
			// Without the bulk: it fills the queue in which packets wait for the heir.
			l := w.startLoad(1, 2, 3)
			for j := 1; j <= 3; j++ {
				w.goesBeside(j)
			}
			w.must(w.agent(2).Kill())
			l.flows()
			_, err := w.StartAgent(2)
			w.must(err)
			w.await(w.ready(lab.Agent, 2))
			said, err := w.handOver(holder)
			if err != nil {
				t.Fatalf("%v: %s", err, said)
			}
			heir := w.awaitHolder(w.Others(holder)...)
			l.flows()
			for j := 1; j <= 3; j++ {
				w.goesBeside(j)
			}
			w.passesBeside(heir)
			l.kept()
		})
	}
}

// speaker sends datagrams from one port of a pod.
func (w *world) speaker(pod string) *net.UDPConn {
	w.t.Helper()
	ns, err := w.Namespace(pod)
	w.must(err)
	var c *net.UDPConn
	w.must(ns.Do(func() error {
		c, err = net.DialUDP("udp4", &net.UDPAddr{Port: 4711}, net.UDPAddrFromAddrPort(netip.AddrPortFrom(partner, lab.UDPPort)))
		return err
	}))
	w.t.Cleanup(func() { c.Close() })
	return c
}

// speak sends until a condition holds.
func (w *world) speak(c *net.UDPConn, until func() error) {
	w.t.Helper()
	w.await(func() error {
		for range 10 {
			if _, err := c.Write([]byte("hello")); err != nil && !strings.Contains(err.Error(), "refused") {
				return err
			}
		}
		return until()
	})
}

// A route that goes takes its flows' way with it.
func TestADeletedRouteEndsWhatGoesBesideNetfilter(t *testing.T) {
	t.Parallel()
	w := start(t, lab.Options{Nodes: 2, GatewayNodes: []int{1}, AgentArgs: fastPath})
	w.seenEventually(selected(2), partner, theVIP)
	c := w.speaker(selected(2))
	w.speak(c, func() error {
		if w.beside(2).PacketsOut < 100 {
			return errors.New("the flow does not go beside netfilter")
		}
		return nil
	})
	w.must(w.Manifests.Remove("EgressRoute", "", "payments"))
	var before uint64
	// The status is there before the kernel is; and the first of several packets renews a lease that is over.
	w.speak(c, func() error {
		now, routes := w.beside(2), len(w.status(lab.Agent, 2).Routes)
		if routes > 0 || now.Flows > 0 || now.PacketsOut != before {
			before = now.PacketsOut
			return fmt.Errorf("%d routes, %+v", routes, now)
		}
		return nil
	})
	for range 100 {
		_, _ = c.Write([]byte("hello"))
	}
	if now := w.beside(2).PacketsOut; now != before {
		t.Errorf("%d packets went beside netfilter after the route", now-before)
	}
}

// What shapes a pod's traffic sits at its interface, and is not passed by.
func TestAShapedPodTakesTheSlowPath(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lab.Options{Nodes: 2, GatewayNodes: []int{1}, AgentArgs: fastPath})
	port, err := w.PodPort(selected(2))
	w.must(err)
	_, err = w.Exec(lab.NodeName(2), "tc", "qdisc", "add", "dev", port, "root", "pfifo")
	w.must(err)
	w.must(w.StartAll())
	w.awaitReady()
	w.seenEventually(selected(2), partner, theVIP)
	c, sent := w.speaker(selected(2)), 0
	w.speak(c, func() error {
		if sent++; sent < 50 {
			return errors.New("not yet enough")
		}
		return nil
	})
	if f := w.beside(2); f.PacketsOut != 0 || f.PacketsIn != 0 {
		t.Errorf("%+v went beside netfilter", f)
	}
	_, err = w.Exec(lab.NodeName(2), "tc", "qdisc", "del", "dev", port, "root")
	w.must(err)
	w.must(w.agent(2).Stop())
	_, err = w.StartAgent(2)
	w.must(err)
	w.await(w.ready(lab.Agent, 2))
	w.speak(c, func() error {
		if w.beside(2).PacketsOut == 0 {
			return errors.New("the flow does not go beside netfilter")
		}
		return nil
	})
}
