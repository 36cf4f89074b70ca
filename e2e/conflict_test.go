package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/e2e/lab"
)

// A misconfigured host with the VIP is named, and not fought with.
func TestAForeignOwnerOfTheVIPIsNamed(t *testing.T) {
	w := start(t, lab.Options{Nodes: 4, GatewayNodes: []int{1, 2, 3}})
	holder := w.holder()
	_, err := w.Exec("n4", "ip", "addr", "add", theVIP.String()+"/32", "dev", "eth0")
	w.must(err)
	w.must(w.Announce(4, theVIP))
	w.await(func() error {
		for _, p := range w.status(lab.Gateway, holder).Problems {
			if strings.Contains(p.Message, "take the address from that host") && strings.Contains(p.Object, theVIP.String()) {
				return nil
			}
		}
		return fmt.Errorf("n%d does not name the other owner", holder)
	})
	for _, j := range others(w.Options.GatewayNodes, holder) {
		for _, p := range w.status(lab.Gateway, j).Problems {
			if strings.Contains(p.Message, "claims it as well") {
				t.Errorf("n%d, which stands by, takes the claim for a conflict: %s", j, p)
			}
		}
	}
	if now := w.holder(); now != holder {
		t.Errorf("n%d holds, it was n%d: a foreign claim is no reason to move", now, holder)
	}
}
