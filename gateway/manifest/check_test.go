package manifest

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/gateway/objects"
)

const clusterYAML = `# what a cluster has
---
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Namespace
  metadata: {name: shop, labels: {team: checkout}}
- apiVersion: v1
  kind: Node
  metadata: {name: n1}
  spec: {podCIDRs: [10.244.1.0/24]}
  status: {addresses: [{type: Hostname, address: n1}, {type: InternalIP, address: 192.0.2.1}]}
- apiVersion: v1
  kind: Pod
  metadata:
    namespace: shop
    name: a
    annotations:
      sallyport.dev/egress-routes: payments, kyc, paymnts
  spec: {nodeName: n1}
  status: {podIP: 10.244.1.10}
`

func TestCheckFindsEveryProblem(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	write(t, file("cluster.yaml"), clusterYAML)
	write(t, file("routes/payments.yaml"), routeYAML)
	write(t, file("routes/kyc.yaml"), strings.NewReplacer("payments", "kyc", "203.0.113.0/24", "203.0.0.0/16").Replace(routeYAML))
	write(t, file("routes/bad.yaml"), strings.NewReplacer("payments", "bad", "  namespaceSelector: {}\n", "", "203.0.113.0/24", `"2001:db8::/32"
    ports: [{port: 0}]`).Replace(routeYAML))
	write(t, file("routes/empty.yaml"), strings.NewReplacer("payments", "empty", "  destinations:\n  - cidr: 203.0.113.0/24\n", "  destinations: []\n").Replace(routeYAML))
	write(t, file("broken.yaml"), "kind: Pod\nmetadata: {name: x\n")
	write(t, file("deployment.yaml"), "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\n")
	write(t, file("old.yaml"), strings.Replace(routeYAML, "v1alpha1", "v1", 1))
	write(t, file("bool.yaml"), strings.NewReplacer("payments", "bool", "{}", "{matchLabels: {team: y}}").Replace(routeYAML))
	write(t, file("spaced.yaml"), strings.Replace(routeYAML, "name: payments", "{name: Payments, namespace: x}", 1))

	found, err := Check([]string{dir})
	must(t, err)
	want := []string{
		file("cluster.yaml") + ":20: Pod shop/a: metadata.annotations[sallyport.dev/egress-routes]: there is no EgressRoute paymnts",
		file("routes/kyc.yaml") + ":9: EgressRoute kyc: spec.destinations[0].cidr: 203.0.0.0/16 matches packets that 203.0.113.0/24 of EgressRoute payments (the longer prefix)",
		file("routes/bad.yaml") + ":5: EgressRoute bad: spec.namespaceSelector: Required value: it says who may use the route: write matchLabels, or {} for every namespace",
		file("routes/bad.yaml") + ":8: EgressRoute bad: spec.destinations[0].cidr: Invalid value: \"2001:db8::/32\": an IPv6 range",
		file("routes/bad.yaml") + ":9: EgressRoute bad: spec.destinations[0].ports[0].port: Invalid value: 0: must be between 1 and 65535",
		file("routes/empty.yaml") + ":8: EgressRoute empty: spec.destinations: Required value: write at least one",
		file("broken.yaml") + ":2: not YAML",
		file("deployment.yaml") + ":2: Deployment web: kind: Deployment is no kind that is read here",
		file("old.yaml") + `:1: EgressRoute payments: apiVersion: "sallyport.dev/v1" is not the version of EgressRoute: write sallyport.dev/v1alpha1`,
		file("bool.yaml") + ":7: EgressRoute bool: spec.namespaceSelector.matchLabels: is a bool where a string is wanted: correct it; texts such as y, no and 1 need quotes",
		file("spaced.yaml") + ":4: EgressRoute Payments: metadata.namespace: EgressRoute belongs to no namespace",
	}
	left := map[string]bool{}
	for _, p := range found {
		left[p.String()] = true
	}
	for _, w := range want {
		seen := false
		for p := range left {
			if strings.HasPrefix(p, w) {
				delete(left, p)
				seen = true
				break
			}
		}
		if !seen {
			t.Errorf("not found: %s", w)
		}
	}
	for p := range left {
		t.Errorf("also found: %s", p)
	}
}

func TestCheckOfRoutesAlone(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a.yaml"), filepath.Join(dir, "b.yaml")
	write(t, a, routeYAML)
	found, err := Check([]string{a})
	must(t, err)
	if len(found) > 0 {
		t.Errorf("a sound route: %v", found)
	}
	write(t, b, strings.Replace(routeYAML, "payments", "kyc", 1))
	if found, err = Check([]string{a, b}); err != nil || len(found) != 1 || !strings.HasPrefix(found[0].String(), a+":9: EgressRoute payments: spec.destinations[0].cidr: 203.0.113.0/24 matches packets that 203.0.113.0/24 of EgressRoute kyc (the first by name)") {
		t.Errorf("two routes for the same, no pods: %v, %v", found, err)
	}
	write(t, b, strings.NewReplacer("payments", "kyc", "{}", "{matchLabels: {team: a}}").Replace(routeYAML))
	write(t, a, strings.Replace(routeYAML, "{}", "{matchLabels: {team: b}}", 1))
	if found, err = Check([]string{a, b}); err != nil || len(found) != 0 {
		t.Errorf("no namespace is admitted by both: %v, %v", found, err)
	}
}

func TestCheckOfWhatIsNotThere(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{dir, filepath.Join(dir, "none.yaml")} {
		if _, err := Check([]string{path}); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, want an error that names it", path, err)
		}
	}
	file := filepath.Join(dir, "any.txt") // named by hand, so the ending does not matter
	write(t, file, routeYAML)
	if s, err := Load(file); err != nil || len(s.Routes) != 1 {
		t.Errorf("%v, %v", s, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("a.yaml", []byte(routeYAML))
	f.Add("a.yaml", []byte(clusterYAML))
	f.Add("a.yaml", []byte(podYAML("a", "10.0.0.1")+"...\n%YAML 1.2\n---\n"+podYAML("b", "::1")))
	f.Add("a.json", []byte(`{"apiVersion":"v1","kind":"PodList","items":[{"metadata":{"name":"x"}}]}{"kind":1}[`))
	f.Add("a.yaml", []byte("a: &a [*a]\n--- x\n"))
	f.Add("a.yaml", []byte("kind: Pod\nkind: Pod\nmetadata: 3"))
	f.Fuzz(func(t *testing.T, path string, text []byte) {
		if path == "" {
			t.Skip("every file has a path")
		}
		c := parse(path, text, objects.NewIntern())
		lines := 1 + strings.Count(string(text), "\n")
		for _, p := range c.problems {
			if p.File != path || p.Object == "" || p.Message == "" || p.Line < 0 || p.Line > lines+1 {
				t.Errorf("problem %+v of a file with %d lines", p, lines)
			}
		}
		for _, o := range c.objects {
			if o.name == "" || o.value == nil {
				t.Errorf("object %+v", o)
			}
		}
		if len(c.refused) > 0 && len(c.problems) == 0 {
			t.Error("an object is refused without a word")
		}
		s := newStore()
		s.put(path, c)
		s.snapshot()
	})
}
