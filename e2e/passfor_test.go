package e2e

import (
	"errors"
	"testing"

	"github.com/sallyport/sallyport/e2e/lab"
	"github.com/sallyport/sallyport/steer"
)

// A pod's own tunnel packet to the VIP would be masqueraded on its way, and come with the
// address of its node, which gateways admit. Its node drops it; no gateway is there to.
func TestAPodDoesNotPassForItsNode(t *testing.T) {
	t.Parallel()
	for _, netfilter := range []string{"nftables", "iptables"} {
		t.Run(netfilter, func(t *testing.T) {
			t.Parallel()
			w := start(t, lab.Options{Netfilter: netfilter, GatewayNodes: []int{1, 2}, GatewayArgs: unhurried})
			w.awaitAdmitted()
			before := w.Partner.Seen(lab.ServiceUDP)[theVIP]
			w.sendTunnelled(unselected(3), theVIP, w.inner(selected(1)))
			w.await(func() error {
				if w.dropped(lab.Agent, 3)[steer.Stranger].Packets == 0 {
					return errors.New("the node of the pod dropped nothing")
				}
				return nil
			})
			w.sees(selected(3), partner, theVIP) // the node's own go on
			if after := w.Partner.Seen(lab.ServiceUDP)[theVIP]; after != before {
				t.Errorf("%d forged packets reached the partner", after-before)
			}
		})
	}
}
