package e2e

import (
	"fmt"
	"testing"

	"github.com/sallyport/sallyport/e2e/lab"
)

// A gateway whose kernel has no translation yet, after a reboot say, must not hold: it
// would let pods of other nodes out under its own address.
func TestAGatewayWithoutTranslationDoesNotHold(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lab.Options{})
	for j := 1; j <= w.Options.Nodes; j++ {
		_, err := w.StartAgent(j)
		w.must(err)
		w.await(w.ready(lab.Agent, j))
	}
	for _, j := range []int{1, 2} { // a quorum, with nothing to translate by
		_, err := w.StartGateway(j, "--source", "dir:"+w.Manifests.Dir+"-gone")
		w.must(err)
	}
	for _, j := range []int{1, 2} {
		w.await(func() error {
			if v := w.status(lab.Gateway, j).VIPs[0]; len(v.Voters) != 2 || v.Barred == "" || v.Held {
				return fmt.Errorf("n%d hears %v, is barred by %q, holds: %t", j, v.Voters, v.Barred, v.Held)
			}
			return nil
		})
	}
	w.silent(selected(1))
	w.silent(selected(3))
	w.noLeak()
	_, err := w.StartGateway(3)
	w.must(err)
	if holder := w.awaitHolder(1, 2, 3); holder != 3 {
		t.Errorf("n%d holds, which has no translation", holder)
	}
	for j := 1; j <= w.Options.Nodes; j++ {
		w.seenEventually(selected(j), partner, theVIP)
	}
	w.noLeak()
}
