package e2e

import (
	"fmt"
	"slices"
	"testing"

	"github.com/sallyport/sallyport/e2e/lab"
	"github.com/sallyport/sallyport/flows/conntrack"
)

// TestWhatBeganInAnInterimIsKept: a holder is away for a while, and is elected again. What
// began meanwhile at the one between goes on, what ended meanwhile ends everywhere, be it
// that the first one heard of it or that it did not, and the one between is dead.
func TestWhatBeganInAnInterimIsKept(t *testing.T) {
	t.Parallel()
	for _, way := range []struct {
		name      string
		netfilter string
		away      func(w *world, first int) error
		back      func(w *world, first int) error
		follows   bool // the first one follows the one between before it is elected again
		handOver  bool
	}{
		{name: "stopped", netfilter: "nftables", away: stopped, back: continued},
		{name: "cut off", netfilter: "iptables", away: (*world).mute, back: (*world).unmute},
		{name: "stopped, and told before the crash", netfilter: "iptables", away: stopped, back: continued, follows: true},
		{name: "cut off, and handed over to", netfilter: "nftables", away: (*world).mute, back: (*world).unmute, follows: true, handOver: true},
	} {
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			w := start(t, lab.Options{TwoNetworks: true, Netfilter: way.netfilter, GatewayArgs: []string{"--timing", "wan"}})
			first := w.holder()
			rest := w.Others(first)
			var before, meanwhile []*lab.Stream
			listen := func(streams *[]*lab.Stream) {
				t.Helper()
				for _, j := range w.Options.GatewayNodes {
					w.seenEventually(selected(j), partner, theVIP)
					s, err := w.StartListening(selected(j), partner)
					w.must(err)
					*streams = append(*streams, s)
				}
			}
			listen(&before)
			w.inStep(first, rest...)

			w.must(way.away(w, first))
			between := w.awaitHolder(rest...)
			third := others(rest, between)[0]
			for _, s := range before {
				w.goesOn(s)
			}
			listen(&meanwhile)
			ended := before[0]
			ended.Stop()
			w.gone(ended, between, third)
			w.inStep(between, third)
			if _, is := w.entry(ended, first); !is {
				t.Fatal("the first one knows what ended while it was away: nothing is tried")
			}

			switch {
			case way.handOver:
				w.must(way.back(w, first))
				w.inStep(between, first, third)
				out, err := w.handOver(between, "--to", lab.NodeName(first))
				if err != nil {
					t.Fatal(out)
				}
			case way.follows:
				w.must(way.back(w, first))
				w.inStep(between, first, third)
				w.must(w.CutOutside(third)) // votes, and does not stand
				w.must(w.gateway(between).Kill())
			default:
				w.must(w.CutOutside(third))
				w.must(w.gateway(between).Kill())
				w.must(way.back(w, first))
			}
			w.awaitHolder(first)
			w.must(w.Restore(third))
			live := slices.Concat(before[1:], meanwhile)
			for _, s := range live {
				w.goesOn(s)
			}
			w.gone(ended, first, third)
			w.inStep(first, third)
			if !way.handOver {
				w.restartGateway(between)
			}
			w.inStep(first, rest...)
			w.must(w.gateway(first).Kill())
			w.awaitHolder(rest...)
			for _, s := range live {
				w.goesOn(s)
				s.Stop()
			}
			w.noLeak()
			w.oneHolder()
		})
	}
}

func stopped(w *world, j int) error   { return w.gateway(j).Pause() }
func continued(w *world, j int) error { return w.gateway(j).Continue() }

func (w *world) mute(j int) error   { return w.CutGossip(j) }
func (w *world) unmute(_ int) error { return w.HealGossip() }

// entry of a stream on a node.
func (w *world) entry(s *lab.Stream, j int) (conntrack.Entry, bool) {
	w.t.Helper()
	for tuple, e := range w.kept(j) {
		if tuple.Src == s.Local().Addr() && tuple.SrcPort == s.Local().Port() {
			return e, true
		}
	}
	return conntrack.Entry{}, false
}

// gone waits until the nodes know of a stream no more.
func (w *world) gone(s *lab.Stream, nodes ...int) {
	w.t.Helper()
	for _, j := range nodes {
		w.await(func() error {
			if e, is := w.entry(s, j); is {
				return fmt.Errorf("n%d still has %s", j, e.Original)
			}
			return nil
		})
	}
}
