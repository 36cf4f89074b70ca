package k8s

import (
	"slices"
	"testing"
	"time"

	"github.com/sallyport/sallyport/e2e/cluster"
	"github.com/sallyport/sallyport/e2e/lab"
)

// slow is a lease that no load of the machine ends: what is looked at beside other
// programs are packets, and not the time of a failover.
const slow = "gateway.timing=wan"

// TestOtherCNIs has pods on networks that other programs make, with tunnels, marks,
// masquerades and policies of their own.
func TestOtherCNIs(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		cni      *cluster.CNI
		mode     string // of kube-proxy
		settings []string
	}{
		{cluster.Flannel("vxlan"), "iptables", nil},
		{cluster.Flannel("host-gw"), "nftables", nil},
		// Calico's IPAM takes addresses from a pool, and not from each Node's podCIDRs.
		{cluster.Calico, "iptables", []string{"cluster.podCIDRs={10.244.0.0/16}"}},
		{cluster.Calico, "nftables", []string{"cluster.podCIDRs={10.244.0.0/16}", faster}},
	} {
		t.Run(c.cni.Name+", kube-proxy in mode "+c.mode, func(t *testing.T) {
			t.Parallel()
			w := start(t, cluster.Options{CNI: c.cni, ProxyMode: c.mode})
			w.neighbours(append(c.settings, slow)...)
			if c.cni == cluster.Calico {
				w.policies()
			}
			w.noLeak()
			w.oneHolder()
		})
	}
}

// neighbours is what must hold beside programs of others: selected pods are seen as the
// VIP from their first packet on and through the death of the holder's node, all
// others as their node.
func (w *world) neighbours(settings ...string) {
	w.t.Helper()
	other := w.deploy(app{name: "other", to: public, connects: 50 * time.Millisecond})
	w.seen(other, asNode)
	w.install(settings...)
	w.apply(payments)
	w.kubectl("wait", "egressroute/payments", "--for=condition=Programmed", "--timeout", patience.String())

	shop := w.deploy(app{name: "shop", to: public, routes: "payments", connects: 50 * time.Millisecond})
	bank := w.deploy(app{name: "bank", to: partner, routes: "payments", connects: 50 * time.Millisecond, echo: 5 * time.Millisecond})
	for _, a := range []app{shop, bank} {
		w.first(a, asVIP)
		w.seen(a, asVIP)
	}
	w.seen(other, asNode)
	fast := slices.Contains(settings, faster)
	if fast {
		w.beside(bank)
	}

	holder := w.holder(1, 2, 3)
	_, err := w.PowerCut(holder)
	w.must(err)
	var rest []int
	for j := 1; j <= 3; j++ {
		if j != holder {
			rest = append(rest, j)
		}
	}
	w.holder(rest...)
	for _, p := range w.pods(bank) {
		if p.node != holder {
			w.seenFrom(p, asVIP)
		}
	}
	if fast {
		w.beside(bank, holder)
	}
	for _, p := range w.pods(other) {
		if p.node != holder {
			w.seenFrom(p, asNode)
		}
	}
	w.must(w.PowerOn(holder))
	w.must(w.AwaitNodes(w.ctx))
	w.back(other, shop, bank)
	w.noLeak()
}

// back awaits that our programs work on every node, and that every pod of the apps runs,
// at the address that the API has: after a node's boot its pods have others.
func (w *world) back(apps ...app) {
	w.t.Helper()
	for _, j := range w.everyNode() {
		w.await(w.ready(lab.Gateway, j))
		w.await(w.ready(lab.Agent, j))
	}
	for _, a := range apps {
		w.await(func() error {
			for _, p := range w.pods(a) {
				if _, err := w.hear(p, time.Now()); err != nil {
					return err
				}
			}
			return nil
		})
	}
}

// policies demands that NetworkPolicies mean for steered pods what they mean for others.
func (w *world) policies() {
	w.t.Helper()
	egress := func(name, to string) {
		w.apply(`apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: ` + name + `}
spec:
  podSelector: {matchLabels: {app: ` + name + `}}
  policyTypes: [Egress]
  egress: [` + to + `]
`)
	}
	egress("shop", "{to: [{ipBlock: {cidr: "+public.String()+"/32}}]}")
	egress("bank", "")
	shop, bank := app{name: "shop"}, app{name: "bank"}
	w.refused(bank)
	w.seen(shop, asVIP)
	egress("shop", "")
	egress("bank", "{to: [{ipBlock: {cidr: "+partner.String()+"/32}}]}")
	w.refused(shop)
	w.seen(bank, asVIP)
	w.kubectl("delete", "networkpolicy", "shop", "bank")
	w.seen(shop, asVIP)
}
