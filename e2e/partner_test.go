package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/e2e/lab"
)

// Every packet filter of the host, and every way a CNI may masquerade that it can
// win against.
var filters = []struct {
	netfilter  string
	masquerade lab.Masquerade
	late       bool
	variant    string // what `iptables` on the node is, "" for what it is anyway
}{
	{netfilter: "nftables", masquerade: lab.MasqueradeIptablesNft},
	{netfilter: "nftables", masquerade: lab.MasqueradeIptablesNft, late: true},
	{netfilter: "nftables", masquerade: lab.MasqueradeIptablesLegacy},
	{netfilter: "nftables", masquerade: lab.MasqueradeIptablesLegacy, late: true},
	{netfilter: "nftables", masquerade: lab.MasqueradeNft},
	{netfilter: "nftables", masquerade: lab.MasqueradeNft, late: true},
	{netfilter: "iptables", masquerade: lab.MasqueradeIptablesNft},
	{netfilter: "iptables", masquerade: lab.MasqueradeIptablesLegacy},
}

func TestPartnerSeesSelectedPodsAsTheVIP(t *testing.T) {
	t.Parallel()
	for _, f := range filters {
		name := fmt.Sprintf("%s beside %s", f.netfilter, f.masquerade)
		if f.late {
			name += " made later"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := start(t, lab.Options{Netfilter: f.netfilter, Masquerade: f.masquerade, MasqueradeLate: f.late, GatewayArgs: unhurried})
			if f.late {
				for j := 1; j <= w.Options.Nodes; j++ {
					w.must(w.Masquerade(j))
				}
			}
			holder := w.holder()
			for j := 1; j <= w.Options.Nodes; j++ {
				where := "another node"
				if j == holder {
					where = "the holder's own node"
				}
				t.Logf("from n%d, %s", j, where)
				w.seenEventually(selected(j), partner, theVIP)
				w.sees(selected(j), lab.PublicAddr, w.NodeIP(j)) // a destination of no route
				w.sees(unselected(j), lab.PublicAddr, w.NodeIP(j))
				w.http(selected(j))
				if out, err := w.Exec(selected(j), "ping", "-c", "2", "-i", "0.05", "-W", "2", partner.String()); err != nil {
					t.Errorf("ping: %v %s", err, out)
				}
			}
			w.must(w.Partner.ForgetRefused()) // whatever came before everything was ready
			tr := w.startTraffic(1, 2, 3)
			w.stop(tr)
			w.noLeak()
			for j := 1; j <= w.Options.Nodes; j++ {
				if _, err := w.SeenAs(unselected(j), partner, 300e6); err == nil {
					t.Errorf("the partner admitted %s", unselected(j))
				}
			}
			w.await(func() error { // what was sent is on its way for as long as the machine is busy
				refused, err := w.Partner.Refused()
				if err == nil && len(refused) != w.Options.Nodes {
					err = fmt.Errorf("refused %+v, want each node's address once: the partner does not tell sources apart", refused)
				}
				return err
			})
		})
	}
}

func (w *world) http(pod string) {
	w.t.Helper()
	ctx := w.t.Context()
	code, body, err := w.Fetch(ctx, pod, fmt.Sprintf("http://%s:%d/", partner, lab.HTTPPort))
	w.must(err)
	if code != http.StatusOK || !strings.Contains(string(body), theVIP.String()) {
		w.t.Errorf("HTTP from %s: %d %q, want the VIP", pod, code, body)
	}
}

func TestTwoNetworks(t *testing.T) {
	t.Parallel()
	w := start(t, lab.Options{TwoNetworks: true, GatewayArgs: unhurried})
	for j := 1; j <= w.Options.Nodes; j++ {
		w.seenEventually(selected(j), partner, theVIP)
		w.sees(unselected(j), lab.PublicAddr, lab.OutsideAddr(j))
	}
	w.noLeak()
}

func TestGatewaysOnSomeNodesOnly(t *testing.T) {
	t.Parallel()
	w := start(t, lab.Options{Nodes: 5, GatewayNodes: []int{1, 3, 5}, PodsPerNode: 1, GatewayArgs: unhurried})
	for j := 1; j <= w.Options.Nodes; j++ {
		w.seenEventually(selected(j), partner, theVIP)
	}
	w.noLeak()
}
