package e2e

import (
	"fmt"
	"net"
	"strconv"
	"testing"

	"github.com/sallyport/sallyport/e2e/lab"
	"github.com/sallyport/sallyport/tunnel"
)

// Whichever program a node has, the tunnel follows the interface below it. That it would at the
// next look, which is up to half a minute away, helps with the first change at most.
func TestTheTunnelFollowsAnotherMTU(t *testing.T) {
	t.Parallel()
	const gateway, agent = 1, 2
	w := start(t, lab.Options{Nodes: 2, GatewayNodes: []int{gateway}, GatewayArgs: []string{"--timing", "wan"}})
	p, err := w.Program(lab.Agent, gateway)
	w.must(err)
	w.must(p.Kill())
	for _, j := range []int{gateway, agent} {
		ns, err := w.Namespace(lab.NodeName(j))
		w.must(err)
		for _, mtu := range []int{1480, 1500, 1490, 1500} {
			_, err := w.Exec(lab.NodeName(j), "ip", "link", "set", "eth0", "mtu", strconv.Itoa(mtu))
			w.must(err)
			w.await(func() error {
				return ns.Do(func() error {
					device, err := net.InterfaceByName("sally0")
					if err == nil && device.MTU != mtu-tunnel.Overhead {
						err = fmt.Errorf("n%d: with an MTU of %d the tunnel's is %d", j, mtu, device.MTU)
					}
					return err
				})
			})
		}
	}
}
