package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/e2e/lab"
)

// Somebody removes the fence of the holder's host, as a firewall's service does that
// flushes all rules. It is there again, and silences a holder that is stopped then.
func TestAFenceThatIsRemovedIsPutUpAgain(t *testing.T) {
	t.Parallel()
	w := start(t, lab.Options{Nodes: 4, GatewayNodes: []int{1, 2, 3}, GatewayArgs: unhurried})
	holder := w.holder()
	w.seenEventually(selected(4), partner, theVIP)
	for _, family := range []string{"arp", "netdev", "ip"} {
		_, err := w.Exec(lab.NodeName(holder), "nft", "delete", "table", family, "sally_fence")
		w.must(err)
	}
	w.await(func() error {
		for _, family := range []string{"ip", "arp", "netdev"} {
			out, err := w.Exec(lab.NodeName(holder), "nft", "list", "set", family, "sally_fence", "vips")
			if err != nil || !strings.Contains(out, theVIP.String()) {
				return fmt.Errorf("n%d has no %s fence: %s %v", holder, family, out, err)
			}
		}
		return nil
	})
	holder = w.holder()
	w.seenEventually(selected(4), partner, theVIP)
	w.must(w.gateway(holder).Pause())
	w.awaitHolder(w.Others(holder)[:2]...)
	w.oneHolder()
	w.seenEventually(selected(4), partner, theVIP)
	w.must(w.gateway(holder).Continue())
	w.oneHolder()
}
