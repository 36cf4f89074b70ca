package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/e2e/lab"
)

// Two of three gateways cannot take the VIP, since their hosts have it from elsewhere.
// Whichever wins the election, the one that can ends up with it, and packets pass.
func TestAGatewayThatCannotClaimLetsAnother(t *testing.T) {
	t.Parallel()
	// A busy machine is to take no lease: who stands by would be right to claim then.
	w := newWorld(t, lab.Options{Nodes: 4, GatewayNodes: []int{1, 2, 3}, GatewayArgs: unhurried})
	for _, j := range []int{1, 2} {
		_, err := w.Exec(lab.NodeName(j), "ip", "addr", "add", theVIP.String()+"/32", "dev", "eth0")
		w.must(err)
		_, err = w.StartGateway(j)
		w.must(err)
	}
	w.await(func() error { // both have had their turn
		for _, j := range []int{1, 2} {
			vips := w.status(lab.Gateway, j).VIPs
			if len(vips) == 0 || !strings.Contains(vips[0].Barred, "the host has it from elsewhere: remove it there") {
				return fmt.Errorf("n%d does not say why it cannot hold: %+v", j, vips)
			}
		}
		return nil
	})
	_, err := w.StartGateway(3)
	w.must(err)
	_, err = w.StartAgent(4)
	w.must(err)
	w.await(w.ready(lab.Agent, 4))
	w.awaitHolder(3)
	w.seenEventually(selected(4), partner, theVIP)
	for _, j := range []int{1, 2} { // their pause is over
		w.await(func() error {
			if s := w.status(lab.Gateway, j).VIPs[0]; s.Barred != "" || !slices.Contains(s.Voters, lab.NodeName(3)) {
				return fmt.Errorf("n%d does not stand by: barred %q, hears %v", j, s.Barred, s.Voters)
			}
			return nil
		})
	}
	if holder := w.holder(); holder != 3 {
		t.Errorf("n%d holds: one that stands by again is no reason to move", holder)
	}
}
