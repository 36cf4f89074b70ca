package e2e

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/doctor"
	"github.com/sallyport/sallyport/e2e/lab"
)

// Replies of a gateway whose own Node has another address are refused everywhere, as by
// a node they are not. It says so itself: to an agent it is like anybody who knocks.
func TestAGatewayWhoseNodeIsNotInTheViewSaysSo(t *testing.T) {
	t.Parallel()
	const gw, node = 1, 2
	w := newTracer(t, lab.Options{})
	pod, to := selected(node), "203.0.113.9:8443"
	w.well(pod, to)
	name, addr := lab.NodeName(gw), w.NodeIP(gw).String()
	for _, c := range []struct {
		name  string
		spoil func() error
		words []string
	}{
		{"an address with a typo", func() error {
			return w.Manifests.WriteNode(name, lab.PodCIDR(gw), []netip.Addr{netip.MustParseAddr("192.0.2.91")})
		}, []string{"Node " + name, "status.addresses", addr, "--node-ip", "add it as InternalIP"}},
		{"no Node at all", func() error { return w.Manifests.Remove("Node", "", name) },
			[]string{"Node " + name, addr, "add the Node", "--node-name"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := &tracer{world: &world{Lab: w.Lab, t: t, arp: w.arp}, http: w.http}
			w.must(c.spoil())
			for _, role := range []lab.Role{lab.Gateway, lab.Agent} {
				w.says(role, gw, append(c.words, "of this "+string(role))...)
			}
			w.await(func() error {
				if as, err := w.SeenAs(pod, partner, 300e6); err == nil {
					return fmt.Errorf("replies arrive, to what leaves as %s", as)
				}
				return nil
			})
			w.names(pod, to, "reply", "Node "+name, nil)
			w.until(nil, func(r doctor.Report) bool {
				return slices.ContainsFunc(r.Findings, func(f doctor.Finding) bool {
					return f.Check == "problems" && f.Object == "Node "+name && f.Severity == doctor.Error && strings.Contains(f.Found, addr)
				})
			})
			for _, p := range slices.Concat(w.status(lab.Gateway, gw).Problems, w.status(lab.Agent, node).Problems) {
				if strings.HasPrefix(p.Object, "EgressRoute ") {
					t.Errorf("the route suffers: %s", p)
				}
			}
			w.must(w.Manifests.WriteNode(name, lab.PodCIDR(gw), []netip.Addr{w.NodeIP(gw)}))
			w.content(lab.Gateway, gw)
			w.well(pod, to)
			w.sees(pod, partner, theVIP)
		})
	}
	w.noLeak()
}
