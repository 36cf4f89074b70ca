package kube_test

import (
	"encoding/json"
	"net/netip"
	"os"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/sallyport/sallyport/api/v1alpha1"
)

func TestEveryKindIsFollowed(t *testing.T) {
	api := admin(t)
	api.addNode(t, 1)
	payer := pod("a", "n1")
	payer.Annotations = map[string]string{v1alpha1.RoutesAnnotation: "payments", "other": "is not read"}
	payer.Labels = map[string]string{"app": "pay"}
	must(t, api.addPod(t.Context(), payer, "10.244.1.2", "10.0.0.1"))
	addRoute(t, "payments", "192.0.2.10", "203.0.113.0/24")
	v := watch(t, server.Kubeconfig, "")
	eventually(t, "the first view", func() bool { return v.delivered() > 0 })
	first := v.since(0)[0]
	if routes(first) != "payments" || pods(first) != "a@n1" || nodes(first) != "n1" || len(first.Problems) > 0 {
		t.Fatalf("the first view is not the whole: %+v", first)
	}
	a := first.Pods[0]
	if a.Annotation != "payments" || a.Labels["app"] != "pay" || len(a.Addrs) != 1 || a.Addrs[0] != netip.MustParseAddr("10.244.1.2") || a.UID == "" {
		t.Errorf("pod %+v", a)
	}
	if n := first.Nodes[0]; n.Addrs[0] != netip.MustParseAddr("10.0.0.1") || n.PodCIDRs[0] != netip.MustParsePrefix("10.244.1.0/24") {
		t.Errorf("node %+v", n)
	}

	// Added.
	api.addNode(t, 2)
	must(t, api.addPod(t.Context(), pod("b", "n2"), "10.244.2.2", "10.0.0.1"))
	addRoute(t, "kyc", "192.0.2.11", "198.51.100.0/24")
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}
	must(t, api.create(t.Context(), "namespaces", "", namespace, namespace))
	shop := func() map[string]string {
		for _, n := range v.last().Namespaces {
			if n.Name == "shop" {
				return n.Labels
			}
		}
		return nil
	}
	eventually(t, "what was added", func() bool {
		s := v.last()
		return routes(s) == "kyc payments" && pods(s) == "a@n1 b@n2" && nodes(s) == "n1 n2" && shop() != nil
	})

	// Changed.
	api.patch(t, "pods", "default", "a", `{"metadata":{"annotations":{"sallyport.dev/egress-routes":"kyc"}}}`)
	api.patch(t, "namespaces", "", "shop", `{"metadata":{"labels":{"team":"checkout"}}}`)
	api.patch(t, "nodes", "", "n2", `{"status":{"addresses":[{"type":"InternalIP","address":"10.0.0.22"}]}}`, "status")
	addRoute(t, "kyc", "192.0.2.12", "198.51.100.0/24")
	eventually(t, "what was changed", func() bool {
		s, ok := v.last(), 0
		for _, p := range s.Pods {
			if p.Name == "a" && p.Annotation == "kyc" {
				ok++
			}
		}
		for _, n := range s.Nodes {
			if n.Name == "n2" && n.Addrs[0] == netip.MustParseAddr("10.0.0.22") {
				ok++
			}
		}
		for _, r := range s.Routes {
			if r.Name == "kyc" && r.VIP == netip.MustParseAddr("192.0.2.12") {
				ok++
			}
		}
		return ok == 3 && shop()["team"] == "checkout"
	})

	// Deleted.
	api.remove(t, "pods", "default", "a")
	api.remove(t, "nodes", "", "n2")
	kubectl(t, "", "delete", "egressroute", "kyc")
	eventually(t, "what was deleted", func() bool {
		s := v.last()
		return routes(s) == "payments" && pods(s) == "b@n2" && nodes(s) == "n1"
	})
}

// What is written to objects that is not used must not cost a run of everything.
func TestWhatIsNotUsedIsNoChange(t *testing.T) {
	api := admin(t)
	api.addNode(t, 1)
	must(t, api.addPod(t.Context(), pod("a", "n1"), "10.244.1.2", "10.0.0.1"))
	addRoute(t, "payments", "192.0.2.10", "203.0.113.0/24")
	v := watch(t, server.Kubeconfig, "")
	eventually(t, "the first view", func() bool { return v.delivered() > 0 })
	n := v.delivered()
	kubectl(t, "", "annotate", "node", "n1", "heartbeat=1")
	kubectl(t, "", "annotate", "pod", "a", "other=1")
	kubectl(t, "", "annotate", "egressroute", "payments", "other=1")
	kubectl(t, "", "patch", "egressroute", "payments", "--subresource=status", "--type=merge", "-p", `{"status":{"pods":7}}`)
	must(t, api.addPod(t.Context(), pod("b", "n1"), "10.244.1.3", "10.0.0.1")) // behind all of that on the pods' watch
	eventually(t, "the pod that follows", func() bool { return pods(v.last()) == "a@n1 b@n1" })
	// The new pod is two changes: made, and given its address.
	if more := len(v.since(n)); more > 2 {
		t.Errorf("%d views for two changes that matter", more)
	}
}

func TestAnAgentSeesItsOwnNodesPods(t *testing.T) {
	api := admin(t)
	api.addNode(t, 1)
	api.addNode(t, 2)
	must(t, api.addPod(t.Context(), pod("a", "n1"), "10.244.1.2", "10.0.0.1"))
	v := watch(t, server.Kubeconfig, "n2")
	eventually(t, "the first view", func() bool { return v.delivered() > 0 })
	must(t, api.addPod(t.Context(), pod("b", "n1"), "10.244.1.3", "10.0.0.1"))
	must(t, api.addPod(t.Context(), pod("c", "n2"), "10.244.2.2", "10.0.0.1"))
	eventually(t, "its own pod", func() bool { return pods(v.last()) == "c@n2" })
	for _, s := range v.since(0) {
		if got := pods(s); got != "" && got != "c@n2" || nodes(s) != "n1 n2" {
			t.Errorf("pods %q, nodes %q", got, nodes(s))
		}
	}
}

// The API server of another version of the definition lets through what this program
// refuses.
func TestARefusedRouteStaysWhatItWas(t *testing.T) {
	text, err := os.ReadFile(crdFile)
	if err != nil {
		t.Fatal(err)
	}
	var crd apiextensions.CustomResourceDefinition
	if err := yaml.Unmarshal(text, &crd); err != nil {
		t.Fatal(err)
	}
	yes := true
	crd.Spec.Versions[0].Schema.OpenAPIV3Schema = &apiextensions.JSONSchemaProps{Type: "object", XPreserveUnknownFields: &yes}
	loose, err := json.Marshal(crd)
	if err != nil {
		t.Fatal(err)
	}
	api := admin(t)
	kubectl(t, string(loose), "replace", "-f", "-")
	t.Cleanup(func() {
		kubectl(t, "", "delete", "egressroutes", "--all", "--wait=true") // they would not pass
		kubectl(t, "", "replace", "-f", crdFile)
	})

	api.addNode(t, 1)
	addRoute(t, "payments", "192.0.2.10", "203.0.113.0/24")
	v := watch(t, server.Kubeconfig, "")
	eventually(t, "the first view", func() bool { return routes(v.last()) == "payments" })
	addRoute(t, "payments", "192.0.2.10", "203.0.113.0/33")
	addRoute(t, "bad", "192.0.2.10.5", "203.0.113.0/24")
	addRoute(t, "good", "192.0.2.11", "198.51.100.0/24")
	eventually(t, "the good one, and both problems", func() bool {
		_, bad := v.problem("EgressRoute bad")
		message, is := v.problem("EgressRoute payments")
		return is && bad && contains(message, "203.0.113.0/33") && routes(v.last()) == "good payments"
	})
	for _, r := range v.last().Routes {
		if r.Name == "payments" && r.Destinations[0].CIDR != netip.MustParsePrefix("203.0.113.0/24") {
			t.Errorf("it is not what it was: %+v", r)
		}
	}
	addRoute(t, "payments", "192.0.2.12", "203.0.113.0/25")
	kubectl(t, "", "delete", "egressroute", "bad")
	eventually(t, "it is sound again", func() bool {
		for _, r := range v.last().Routes {
			if r.Name == "payments" && r.VIP == netip.MustParseAddr("192.0.2.12") {
				return len(v.last().Problems) == 0
			}
		}
		return false
	})
}
