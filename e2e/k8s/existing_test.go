package k8s

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/e2e/cluster"
	"github.com/sallyport/sallyport/e2e/cluster/traffic"
)

// What the scenario on an existing cluster is told, all of it needed:
//
//	E2E_KUBECONFIG   of an administrator; kubectl and helm are found in PATH
//	E2E_IMAGE        our image, NAME:TAG, where the nodes get it
//	E2E_POD_IMAGE    an image whose entry point is e2e/cluster/cmd/pod
//	E2E_VIP          a free address in the subnet of the nodes
//	E2E_PARTNER      an address outside of the cluster where `pod partner` runs
const existingApp = `apiVersion: apps/v1
kind: Deployment
metadata: {name: sallyport-e2e, namespace: %[1]s}
spec:
  replicas: 3
  selector: {matchLabels: {app: sallyport-e2e}}
  template:
    metadata:
      labels: {app: sallyport-e2e}
      annotations: {sallyport.dev/egress-routes: %[2]s}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: client
        image: %[3]s
        args: [client, --to, %[4]s, --connects, 100ms]
        readinessProbe: {tcpSocket: {port: %[5]d}, periodSeconds: 1}
`

const existingRoute = `apiVersion: sallyport.dev/v1alpha1
kind: EgressRoute
metadata: {name: sallyport-e2e}
spec:
  vip: %s
  namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: %s}}
  destinations: [{cidr: %s/32}]
`

// TestOnAClusterThatExists installs, annotates, observes and uninstalls. Faults, and
// what is left on the nodes, are looked at in clusters of our own only.
func TestOnAClusterThatExists(t *testing.T) {
	if os.Getenv(kubeconfigEnv) == "" {
		t.Skip("uses the cluster of " + kubeconfigEnv + ", which is not set")
	}
	given := map[string]string{}
	for _, name := range []string{kubeconfigEnv, "E2E_IMAGE", "E2E_POD_IMAGE", "E2E_VIP", "E2E_PARTNER"} {
		if given[name] = os.Getenv(name); given[name] == "" {
			t.Fatalf("%s is not set: see existing_test.go", name)
		}
	}
	vip, to := netip.MustParseAddr(given["E2E_VIP"]), given["E2E_PARTNER"]
	api, err := cluster.Existing(given[kubeconfigEnv], t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	w := &world{Cluster: &cluster.Cluster{API: api}, t: t, ctx: t.Context()}
	const ns = "sallyport-e2e"
	w.apply(`{apiVersion: v1, kind: Namespace, metadata: {name: ` + ns + `}}`)
	name, tag, _ := strings.Cut(given["E2E_IMAGE"], ":")
	_, err = api.Helm(w.ctx, "install", ns, "../../charts/sallyport", "--namespace", ns, "--wait", "--timeout", "300s",
		"--set", "gateway.vips={"+vip.String()+"}", "--set", "image.repository="+name, "--set", "image.tag="+tag)
	w.must(err)
	w.apply(fmt.Sprintf(existingRoute, vip, ns, to))

	observe := func(annotation string, want bool) {
		t.Helper()
		w.apply(fmt.Sprintf(existingApp, ns, annotation, given["E2E_POD_IMAGE"], to, traffic.Port))
		w.kubectl("rollout", "status", "-n", ns, "deployment/sallyport-e2e", "--timeout=180s")
		for _, pod := range strings.Fields(w.kubectl("get", "pods", "-n", ns, "-l", "app=sallyport-e2e", "--field-selector=status.phase=Running", "-o", "jsonpath={.items[*].metadata.name}")) {
			since := time.Now().UTC()
			w.await(func() error {
				path := fmt.Sprintf("/api/v1/namespaces/%s/pods/%s:%d/proxy/report?since=%s", ns, pod, traffic.Port, since.Format(time.RFC3339Nano))
				text, err := api.Kubectl(w.ctx, "", "get", "--raw", path)
				var r traffic.Report
				if err == nil {
					err = json.Unmarshal([]byte(text), &r)
				}
				if err != nil {
					return err
				}
				sources := r.Connects.Sources()
				if len(sources) == 0 {
					return fmt.Errorf("no connection of %s is answered", pod)
				}
				if (sources[vip] > 0) != want || len(sources) > 1 {
					since = time.Now().UTC() // what was begun before the change says nothing
					return fmt.Errorf("%s is seen as %v, as the VIP: want %t", pod, sources, want)
				}
				return nil
			})
		}
	}
	observe("sallyport-e2e", true)
	observe("null", false)
	w.kubectl("delete", "egressroute", "sallyport-e2e")
	_, err = api.Helm(w.ctx, "uninstall", ns, "--namespace", ns, "--wait", "--timeout", "300s")
	w.must(err)
	w.kubectl("delete", "namespace", ns, "--wait")
}
