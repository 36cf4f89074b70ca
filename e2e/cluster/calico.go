package cluster

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/sallyport/sallyport/e2e/lab"
)

const calicoPath = "github.com/projectcalico/calico"

// Without C: felix's BPF data plane is left out, which is not used here.
var calicoModule = module{folder: "cni-calico", programs: map[string]string{
	"calico-node": calicoPath + "/node/cmd/calico-node", "calico": calicoPath + "/cni-plugin/cmd/calico",
}}

// Calico is felix with iptables, and Calico's plugin and IPAM, as its manifest
// calico-vxlan.yaml runs them, with the VXLAN tunnel between all nodes. It enforces
// NetworkPolicies.
var Calico = &CNI{
	Name: "Calico VXLAN",
	Programs: func(ctx context.Context, progress io.Writer) (string, error) {
		dir, err := built(ctx, "calico", progress, cniPlugins, calicoModule)
		if err != nil {
			return "", err
		}
		// One program with two names.
		if err := os.Symlink("calico", filepath.Join(dir, "calico-ipam")); err != nil && !os.IsExist(err) {
			return "", fmt.Errorf("name Calico's IPAM: %w", err)
		}
		return dir, nil
	},
	Install: installCalico,
	Config: func(j int) string {
		return fmt.Sprintf(`{"cniVersion": "0.3.1", "name": "k8s-pod-network", "plugins": [
  {"type": "calico", "log_level": "info", "log_file_path": "/var/log/calico-cni.log", "datastore_type": "kubernetes",
   "nodename": %q, "mtu": 1450, "ipam": {"type": "calico-ipam"}, "policy": {"type": "k8s"},
   "kubernetes": {"kubeconfig": "/etc/cni/net.d/calico.kubeconfig"}},
  {"type": "portmap", "snat": true, "capabilities": {"portMappings": true}}]}
`, lab.NodeName(j))
	},
	Daemons: func(c *Cluster, j int, programs string) []Daemon {
		kubeconfig := filepath.Join(c.dir, "calico-node.kubeconfig")
		// The plugin reads what Calico's installer puts beside its configuration.
		script := "cp " + filepath.Join(c.dir, "calico-cni-plugin.kubeconfig") + " /etc/cni/net.d/calico.kubeconfig\n" + calicoScript
		return []Daemon{{"calico-node", []string{"/usr/bin/env",
			"PATH=" + programs + ":/usr/sbin:/usr/bin:/sbin:/bin", "KUBECONFIG=" + kubeconfig, "DATASTORE_TYPE=kubernetes",
			"NODENAME=" + lab.NodeName(j), "IP=" + lab.OutsideAddr(j).String(), "CALICO_NETWORKING_BACKEND=vxlan", "CLUSTER_TYPE=k8s",
			"CALICO_IPV4POOL_CIDR=" + podCIDRs.String(), "CALICO_IPV4POOL_VXLAN=Always", "CALICO_IPV4POOL_IPIP=Never", "NO_DEFAULT_POOLS=false",
			"FELIX_DEFAULTENDPOINTTOHOSTACTION=ACCEPT", "FELIX_IPV6SUPPORT=false", "FELIX_BPFENABLED=false", "FELIX_LOGSEVERITYSCREEN=Info",
			"FELIX_HEALTHENABLED=true", "CALICO_DISABLE_FILE_LOGGING=true", "CALICO_MANAGE_CNI=false", "CALICO_K8S_NODE_REF=" + lab.NodeName(j),
			"bash", "-c", oneLine(script),
		}}}
	},
}

// calicoScript is what the container calico-node does when it starts.
const calicoScript = `mkdir -p /var/lib/calico /run/calico
until calico-node -startup; do sleep 1; done
until calico-node -allocate-tunnel-addrs -allocate-tunnel-addrs-run-once; do sleep 1; done
while true; do calico-node -felix; sleep 1; done
`

// oneLine is a script as one of a program's options, which are a line each.
func oneLine(script string) string {
	return strings.Join(strings.Split(strings.TrimSpace(script), "\n"), "; ")
}

// installCalico applies the manifest without what runs in containers.
func installCalico(ctx context.Context, c *Cluster) error {
	source, err := calicoModule.source(ctx, calicoPath)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(source, "manifests", "calico-vxlan.yaml"))
	if err != nil {
		return fmt.Errorf("read Calico's manifest: %w", err)
	}
	var objects []string
	workload := regexp.MustCompile(`(?m)^kind: (DaemonSet|Deployment|PodDisruptionBudget)$`)
	for _, object := range strings.Split(string(text), "\n---\n") {
		if !workload.MatchString(object) {
			objects = append(objects, object)
		}
	}
	// The descriptions of its CRDs do not fit the annotation of a client-side apply.
	if _, err := c.API.Kubectl(ctx, strings.Join(objects, "\n---\n"), "apply", "--server-side", "-f", "-"); err != nil {
		return err
	}
	for _, account := range []string{"calico-node", "calico-cni-plugin"} {
		if err := c.account(ctx, "kube-system", account); err != nil {
			return err
		}
	}
	return nil
}
