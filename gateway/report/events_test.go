package report

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport/sallyport/gateway"
)

// A whole view goes in, so that the test breaks with the problems' wording too.
func TestPodsAreToldWhatConcernsThem(t *testing.T) {
	node := gateway.Node{Name: "n1", Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.1")}}
	pod := func(name, annotation, addr string) gateway.Pod {
		return gateway.Pod{
			Namespace: "shop", Name: name, UID: "uid-" + name, Node: "n1", Annotation: annotation, Annotated: true,
			Addrs: []netip.Addr{netip.MustParseAddr(addr)},
		}
	}
	onNode := pod("on-node", "payments", "10.0.0.1")
	onNode.HostNetwork = true
	route := func(name, vip, namespace string) gateway.Route {
		r := gateway.Route{Name: name, VIP: netip.MustParseAddr(vip), Destinations: []gateway.Destination{{CIDR: netip.MustParsePrefix("203.0.113.0/24")}}}
		if namespace != "" {
			r.NamespaceSelector.MatchLabels = map[string]string{"name": namespace}
		}
		return r
	}
	snap := gateway.Snapshot{
		Routes: []gateway.Route{route("payments", "192.0.2.10", ""), route("kyc", "192.0.2.11", ""), route("closed", "192.0.2.10", "bank")},
		Pods: []gateway.Pod{
			pod("good", "payments,kyc", "10.244.1.2"), pod("stray", "paymnets", "10.244.1.3"),
			pod("mixed", "payments,closed", "10.244.1.4"), onNode, pod("plain", "", "10.244.1.5"),
		},
		Namespaces: []gateway.Namespace{{Name: "shop"}}, Nodes: []gateway.Node{node},
	}
	plan, problems := gateway.Build(snap, nil)
	got := Pods(snap.Pods, plan, problems)
	event := func(name, reason, note string) Event {
		return Event{
			Object: Object{Kind: "Pod", Namespace: "shop", Name: name, UID: "uid-" + name}, Warning: reason != Steered, Reason: reason, Action: "Steer", Note: note,
		}
	}
	want := []Event{
		event("good", Steered, "new connections leave by the EgressRoutes kyc (as 192.0.2.11), payments (as 192.0.2.10)"),
		event("mixed", "NotAllowed", "metadata.annotations[sallyport.dev/egress-routes]: EgressRoute closed does not admit namespace shop: "+
			"label the namespace as its namespaceSelector asks, or take the name out of the annotation"),
		event("mixed", Steered, "new connections leave by the EgressRoutes payments (as 192.0.2.10)"),
		event("on-node", "HostNetwork", "spec.hostNetwork: the pod shares its node's address, so EgressRoute payments cannot take its traffic: remove hostNetwork, or take the route from the pod"),
		event("stray", "UnknownRoute", "metadata.annotations[sallyport.dev/egress-routes]: there is no EgressRoute paymnets: create it, or correct the annotation"),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if again := Fresh(got, Pods(snap.Pods, plan, problems)); len(again) > 0 {
		t.Errorf("told again: %v", again)
	}
	if news := Fresh(got[1:], got); len(news) != 1 || news[0] != got[0] {
		t.Errorf("fresh: %v", news)
	}
}
