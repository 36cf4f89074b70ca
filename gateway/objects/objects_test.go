package objects

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/sallyport/sallyport/api/v1alpha1"
)

func read[T any](t *testing.T, text string) *T {
	t.Helper()
	var o T
	if err := yaml.UnmarshalStrict([]byte(text), &o); err != nil {
		t.Fatal(err)
	}
	return &o
}

func check(t *testing.T, name string, got any, want string) {
	t.Helper()
	if s := fmt.Sprintf("%+v", got); s != want {
		t.Errorf("%s\n got %s\nwant %s", name, s, want)
	}
}

func TestRoute(t *testing.T) {
	r, errs := Route(read[v1alpha1.EgressRoute](t, `
metadata: {name: payments, generation: 2, creationTimestamp: "2026-01-02T03:04:05+01:00"}
spec:
  vip: 192.0.2.10
  namespaceSelector: {matchExpressions: [{key: team, operator: In, values: [a]}]}
  podSelector: {}
  destinations:
  - cidr: 203.0.113.0/24
    except: [203.0.113.9/32]
    ports: [{port: 443}, {protocol: UDP, port: 1, endPort: 9}, {protocol: SCTP}]
`))
	check(t, "errors", errs, "[]")
	check(t, "created", r.Created, "2026-01-02 02:04:05 +0000 UTC")
	check(t, "namespaces", r.NamespaceSelector, "{MatchLabels:map[] Expressions:[{Key:team Operator:In Values:[a]}]}")
	check(t, "pods", *r.PodSelector, "{MatchLabels:map[] Expressions:[]}")
	check(t, "destinations", r.Destinations,
		"[{CIDR:203.0.113.0/24 Except:[203.0.113.9/32] Ports:[443/tcp 1-9/udp 0-65535/sctp]}]")
	if _, errs := Route(&v1alpha1.EgressRoute{}); len(errs) == 0 {
		t.Error("an invalid route is taken")
	}
	for flags, want := range map[string]string{
		"": "false false", ", failClosed: true": "false false", ", failClosed: false": "true false", ", exclusive: true": "false true",
	} {
		r, errs := Route(read[v1alpha1.EgressRoute](t, "spec: {vip: 192.0.2.10, namespaceSelector: {}, destinations: [{cidr: 203.0.113.0/24}]"+flags+"}"))
		check(t, "errors", errs, "[]")
		check(t, "fail open and exclusive with"+flags, fmt.Sprint(r.FailOpen, r.Exclusive), want)
	}
	undated, _ := Route(read[v1alpha1.EgressRoute](t, "spec: {vip: 192.0.2.10, namespaceSelector: {}, destinations: [{cidr: 203.0.113.0/24}]}"))
	if !undated.Created.IsZero() || undated.PodSelector != nil {
		t.Errorf("undated: %+v", undated)
	}
}

func TestPod(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{`{metadata: {namespace: shop, name: a, uid: u, annotations: {sallyport.dev/egress-routes: ""}}, spec: {nodeName: n1, hostNetwork: true}, status: {podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}, {ip: "fd00::1"}, {ip: "::ffff:10.0.0.1"}]}}`,
			"{Namespace:shop Name:a UID:u Labels:map[] Annotation: Annotated:true Node:n1 Addrs:[10.0.0.1 fd00::1] HostNetwork:true Ended:false Terminating:false} []"},
		{`{metadata: {name: b, deletionTimestamp: "2026-01-02T03:04:05Z"}, status: {phase: Succeeded, podIP: 10.0.0.2}}`,
			"{Namespace: Name:b UID: Labels:map[] Annotation: Annotated:false Node: Addrs:[10.0.0.2] HostNetwork:false Ended:true Terminating:true} []"},
		{`{metadata: {name: c}, status: {phase: Failed}}`,
			"{Namespace: Name:c UID: Labels:map[] Annotation: Annotated:false Node: Addrs:[] HostNetwork:false Ended:true Terminating:false} []"},
	} {
		p, errs := Pod(read[corev1.Pod](t, c.text))
		check(t, c.text, fmt.Sprintf("%+v %v", p, errs), c.want)
	}
	if _, errs := Pod(read[corev1.Pod](t, `{status: {podIPs: [{ip: "fe80::1%eth0"}]}}`)); len(errs) != 1 || errs[0].Field != "status.podIPs[0].ip" {
		t.Errorf("an address with a zone: %v", errs)
	}
}

func TestNamespace(t *testing.T) {
	check(t, "without labels", Namespace(read[corev1.Namespace](t, "metadata: {name: shop}")),
		"{Name:shop Labels:map[kubernetes.io/metadata.name:shop] Annotation: Annotated:false}")
	check(t, "annotated", Namespace(read[corev1.Namespace](t, "metadata: {name: shop, labels: {a: b}, annotations: {sallyport.dev/egress-routes: kyc}}")),
		"{Name:shop Labels:map[a:b kubernetes.io/metadata.name:shop] Annotation:kyc Annotated:true}")
}

func TestNode(t *testing.T) {
	n, errs := Node(read[corev1.Node](t, `{metadata: {name: n1}, spec: {podCIDR: 10.244.1.7/24}, status: {addresses: [
  {type: Hostname, address: n1}, {type: ExternalIP, address: 198.51.100.1}, {type: InternalIP, address: 192.0.2.1}, {type: InternalIP, address: "2001:db8::1"}]}}`))
	check(t, "node", fmt.Sprintf("%+v %v", n, errs), "{Name:n1 Addrs:[192.0.2.1 2001:db8::1 198.51.100.1] PodCIDRs:[10.244.1.0/24]} []")
	if _, errs = Node(&corev1.Node{}); len(errs) != 1 || errs[0].Field != "status.addresses" {
		t.Errorf("no address: %v", errs)
	}
	if _, errs = Node(read[corev1.Node](t, `{spec: {podCIDRs: [x]}, status: {addresses: [{type: InternalIP, address: y}]}}`)); len(errs) != 2 {
		t.Errorf("nonsense: %v", errs)
	}
}
