package cluster

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/e2e/lab"
	"github.com/sallyport/sallyport/e2e/netns"
)

const clients = `apiVersion: apps/v1
kind: DaemonSet
metadata: {name: clients}
spec:
  selector: {matchLabels: {app: clients}}
  template:
    metadata: {labels: {app: clients}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: client, image: "` + PodImage + `", args: [client, --to, 203.0.113.9, --connects, 50ms],
        readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}}]
`

// TestNodesRunAndDieAndAreGone walks through what scenarios do to a cluster.
func TestNodesRunAndDieAndAreGone(t *testing.T) {
	if os.Getenv(ProgramsEnv) == "" {
		t.Skipf("needs the Kubernetes programs: set %s to what `go run ./e2e/cluster/cmd/cluster bin` prints", ProgramsEnv)
	}
	c, err := Up(t.Context(), Options{Prefix: "spkt", Nodes: 2, Progress: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	closed := false
	t.Cleanup(func() {
		if !closed {
			_ = c.Close()
		}
	})
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	kubectl := func(args ...string) string {
		t.Helper()
		out, err := c.API.Kubectl(t.Context(), "", args...)
		must(err)
		return out
	}
	ready := func(node, want string) func() error {
		return func() error {
			got := kubectl("get", "node", node, "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].status}`)
			if got != want {
				return fmt.Errorf("%s is ready: %s, want %s", node, got, want)
			}
			return nil
		}
	}
	_, err = c.API.Kubectl(t.Context(), clients, "apply", "-f", "-")
	must(err)
	kubectl("wait", "--for=jsonpath={.status.numberReady}=2", "daemonset/clients", "--timeout=60s")
	must(lab.Await(time.Minute, func() error {
		for j := 1; j <= 2; j++ {
			if n := c.Lab.Partner.Seen(lab.ServiceTCP)[lab.OutsideAddr(j)]; n == 0 {
				return fmt.Errorf("the CNI does not masquerade the pods of n%d: the partner saw %v", j, c.Lab.Partner.Seen(""))
			}
		}
		if out := kubectl("logs", "daemonset/clients"); !strings.HasPrefix(out, "first {") {
			return fmt.Errorf("the log of a pod: %q", out)
		}
		return nil
	}))

	must(c.KillOn(1, Kubelet))
	must(lab.Await(time.Minute, ready("n1", "Unknown")))
	address := kubectl("get", "pods", "-l", "app=clients", "--field-selector", "spec.nodeName=n1", "-o", "jsonpath={.items[0].status.podIP}")
	if code, _, err := c.Lab.Fetch(t.Context(), ControlPlane, "http://"+address+":8080/report"); err != nil || code != http.StatusOK {
		t.Errorf("the pods of a node without kubelet run on: %d, %v", code, err)
	}
	must(c.StartOn(1, Kubelet))
	must(lab.Await(time.Minute, ready("n1", "True")))

	at, err := c.PowerCut(2)
	must(err)
	if _, err := c.Run(2, "true"); err == nil || !strings.Contains(err.Error(), "no power") {
		t.Errorf("a node without power: %v", err)
	}
	must(lab.Await(time.Minute, ready("n2", "Unknown")))
	t.Logf("the dead node was noticed after %s", time.Since(at).Round(time.Second))
	must(c.PowerOn(2))
	must(lab.Await(time.Minute, ready("n2", "True")))
	kubectl("rollout", "status", "daemonset/clients", "--timeout=60s")

	report := filepath.Join(t.TempDir(), "report")
	must(c.WriteReport(t.Context(), report))
	for file, want := range map[string]string{"n1/iptables.txt": "KUBE-SERVICES", "n2/routes.txt": "default via", "cp/pods.txt": "clients-",
		"n1/kubelet.log": "kubelet", "partner.txt": "192.0.2.1"} {
		if text, err := os.ReadFile(filepath.Join(report, file)); err != nil || !strings.Contains(string(text), want) {
			t.Errorf("the report's %s has no %q: %v", file, want, err)
		}
	}

	closed = true
	must(c.Close())
	if names, err := netns.Names("spkt-"); err != nil || len(names) > 0 {
		t.Errorf("namespaces left: %v, %v", names, err)
	}
	if left, _ := filepath.Glob(cgroupRoot + "/*/spkt"); len(left) > 0 {
		t.Errorf("cgroups left: %v", left)
	}
	if mounts, err := os.ReadFile("/proc/self/mounts"); err != nil || strings.Contains(string(mounts), c.dir) {
		t.Errorf("mounts of %s left: %v", c.dir, err)
	}
	if out, _ := exec.Command("pgrep", "-f", c.dir).Output(); len(out) > 0 {
		t.Errorf("processes left: %s", out)
	}
}
