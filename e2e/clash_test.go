package e2e

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/e2e/lab"
	"github.com/sallyport/sallyport/gateway"
	"github.com/sallyport/sallyport/gateway/host"
)

// A port that another process has is named with the process, and when that ends all
// is well without anybody's help. Marks and tables that others use are named, and
// stop nothing.
func TestClashesAtTheStartAreNamed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lab.Options{Nodes: 1})
	theirs := `table inet theirs {
	chain c {
		type filter hook forward priority mangle
		ip daddr 198.51.100.1 meta mark set meta mark | 0x100
	}
	chain zones {
		type filter hook prerouting priority raw
		iif "lo" ct zone set 51
	}
}`
	_, err := w.Exec("n1", "nft", theirs)
	w.must(err)
	_, err = w.Exec("n1", "ip", "rule", "add", "pref", "200", "from", "10.99.0.0/16", "lookup", "5331")
	w.must(err)
	ns, err := w.Namespace("n1")
	w.must(err)
	var taken *net.UDPConn
	w.must(ns.Do(func() error {
		taken, err = net.ListenUDP("udp4", &net.UDPAddr{Port: 4793})
		return err
	}))
	defer taken.Close()
	w.must(w.StartAll())

	want := fmt.Sprintf("UDP port 4793 is in use by e2e.test (process %d)", os.Getpid())
	for _, role := range []lab.Role{lab.Agent, lab.Gateway} {
		w.await(func() error {
			if s := w.status(role, 1); !strings.Contains(s.Apply.Error, want) {
				return fmt.Errorf("%s says %q, want %q", role, s.Apply.Error, want)
			}
			return nil
		})
		w.await(w.names(role, "nftables table inet theirs, chain c: --mark-mask: "))
		w.await(w.names(role, "ip rule 200: fwmark 0x0/0x0 lookup 5331: --table-base: "))
		w.logs(role, 1, "another program uses what is ours")
	}
	w.await(w.names(lab.Gateway, "nftables table inet theirs, chain zones: --conntrack-zone: "))

	taken.Close()
	w.awaitReady()
	w.seenEventually(selected(1), partner, theVIP)
	w.noLeak()
}

// names is satisfied once a program's problems have one that begins so.
func (w *world) names(role lab.Role, begin string) func() error {
	return func() error {
		var s host.Status
		if s = w.status(role, 1); slices.ContainsFunc(s.Problems, func(p gateway.Problem) bool { return strings.HasPrefix(p.String(), begin) }) {
			return nil
		}
		return fmt.Errorf("%s names %v, want one that begins %q", role, s.Problems, begin)
	}
}
