package e2e

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/sallyport/sallyport/e2e/lab"
)

// Gateways of a StatefulSet keep their names, and not their nodes: two that die together come back
// in each other's place, before anybody has missed them. What they carried goes on, all are followed
// again, and can take over.
func TestGatewaysMayChangePlaces(t *testing.T) {
	t.Parallel()
	for _, dies := range []string{"the holder and a standby", "both standbys"} {
		t.Run(dies, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, lab.Options{GatewayArgs: slices.Concat(unhurried, []string{"--members", "gw-1,gw-2,gw-3"})})
			named := map[int]int{}
			start := func(j, n int) {
				t.Helper()
				_, err := w.StartGateway(j, "--name", fmt.Sprintf("gw-%d", n))
				w.must(err)
				named[j] = n
			}
			for j := 1; j <= w.Options.Nodes; j++ {
				start(j, j)
				_, err := w.StartAgent(j)
				w.must(err)
			}
			w.awaitReady()
			var err error
			w.arp, err = w.WatchARP(5 * time.Millisecond)
			w.must(err)
			first := w.holder()
			rest := w.Others(first)
			var streams []*lab.Stream
			for j := 1; j <= w.Options.Nodes; j++ {
				w.seenEventually(selected(j), partner, theVIP)
				s, err := w.StartListening(selected(j), partner)
				w.must(err)
				streams = append(streams, s)
			}
			w.inStep(first, rest...)
			whole := func() int {
				t.Helper()
				holder := w.holder()
				w.await(func() error {
					for _, j := range w.Options.GatewayNodes {
						s := w.status(lab.Gateway, j)
						if v := s.VIPs[0]; len(v.Voters) != 3 || v.Holder != fmt.Sprintf("gw-%d", named[holder]) || len(s.Problems) > 0 {
							return fmt.Errorf("n%d hears %v, takes %q for the holder, which is gw-%d: %v", j, v.Voters, v.Holder, named[holder], s.Problems)
						}
					}
					return nil
				})
				w.inStep(holder, w.Others(holder)...)
				for _, s := range streams {
					w.goesOn(s)
				}
				return holder
			}
			a, b := rest[0], rest[1]
			if dies == "the holder and a standby" {
				a = first
			}
			w.must(w.gateway(a).Kill())
			w.must(w.gateway(b).Kill())
			n, m := named[a], named[b]
			start(a, m)
			start(b, n)
			holder := whole()
			w.must(w.gateway(holder).Kill())
			w.awaitHolder(w.Others(holder)...)
			start(holder, named[holder])
			whole()
			for _, s := range streams {
				s.Stop()
			}
			w.noLeak()
			w.oneHolder()
		})
	}
}
