package e2e

import (
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/sallyport/sallyport/e2e/lab"
)

// A node may forget a connection that the gateways know: by `conntrack -F`, or because
// the pod gave up and the partner's answer came late. What the partner sends then is of a
// connection that the partner seems to have begun, whose answers nobody would steer.
func TestAConnectionThatTheNodeForgotKeepsItsWay(t *testing.T) {
	t.Parallel()
	for _, netfilter := range []string{"nftables", "iptables"} {
		t.Run(netfilter, func(t *testing.T) {
			t.Parallel()
			w := start(t, lab.Options{Netfilter: netfilter, GatewayArgs: unhurried})
			forgot := map[*lab.Stream]time.Time{}
			for _, j := range []int{1, 2, 3} { // the holder's own node, and others
				pod := selected(j)
				w.seenEventually(pod, partner, theVIP)
				s, err := w.StartListening(pod, partner)
				w.must(err)
				w.must(s.KeepAlive(time.Second))
				_, err = w.Exec(lab.NodeName(j), "conntrack", "-D", "--zone", "0", "-p", "tcp",
					"-s", w.addrOf(pod).String(), "--sport", strconv.Itoa(int(s.Local().Port())))
				w.must(err)
				forgot[s] = time.Now()
			}
			for s, since := range forgot {
				w.await(func() error {
					// More than the partner sends without an acknowledgement.
					if n := len(s.Since(since).Exchanges); n < 200 {
						return errors.Join(fmt.Errorf("%d records since then", n), s.Broken())
					}
					return nil
				})
				s.Stop()
			}
			w.noLeak()
		})
	}
}
