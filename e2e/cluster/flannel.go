package cluster

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/sallyport/sallyport/e2e/lab"
)

var flannelModules = []module{
	// Its udp backend, unused here, is in C.
	{folder: "cni-flannel", cgo: true, programs: map[string]string{"flanneld": "github.com/flannel-io/flannel"}},
	{folder: "cni-flannel/plugin", programs: map[string]string{"flannel": "github.com/containernetworking/plugins/plugins/meta/flannel"}},
}

// Flannel is flanneld with leases from the API server, and a backend: "vxlan" or
// "host-gw". It masquerades what leaves the pods' network.
func Flannel(backend string) *CNI {
	return &CNI{
		Name: "flannel " + backend,
		Config: func(int) string {
			return `{"cniVersion": "0.3.1", "name": "cbr0", "plugins": [
  {"type": "flannel", "delegate": {"hairpinMode": true, "isDefaultGateway": true}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
`
		},
		Programs: func(ctx context.Context, progress io.Writer) (string, error) {
			return built(ctx, "flannel", progress, cniPlugins, flannelModules...)
		},
		Install: func(ctx context.Context, c *Cluster) error {
			if _, err := c.API.Kubectl(ctx, flannelObjects, "apply", "-f", "-"); err != nil {
				return err
			}
			if err := c.account(ctx, "kube-flannel", "flannel"); err != nil {
				return err
			}
			conf := fmt.Sprintf(`{"Network": %q, "EnableNFTables": false, "Backend": {"Type": %q}}`, podCIDRs, backend)
			return os.WriteFile(filepath.Join(c.dir, "net-conf.json"), []byte(conf), 0o644)
		},
		Daemons: func(c *Cluster, j int, programs string) []Daemon {
			return []Daemon{{"flanneld", []string{
				"/usr/bin/env", "NODE_NAME=" + lab.NodeName(j), filepath.Join(programs, "flanneld"), "--kube-subnet-mgr", "--ip-masq",
				"--iface=eth0", "--kubeconfig-file=" + filepath.Join(c.dir, "flannel.kubeconfig"),
				"--net-config-path=" + filepath.Join(c.dir, "net-conf.json"),
			}}}
		},
	}
}

// flannelObjects is what kube-flannel.yml has beside its DaemonSet.
const flannelObjects = `apiVersion: v1
kind: Namespace
metadata: {name: kube-flannel}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: flannel, namespace: kube-flannel}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: flannel}
rules:
- {apiGroups: [""], resources: [pods], verbs: [get]}
- {apiGroups: [""], resources: [nodes], verbs: [get, list, watch]}
- {apiGroups: [""], resources: [nodes/status], verbs: [patch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: flannel}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: flannel}
subjects: [{kind: ServiceAccount, name: flannel, namespace: kube-flannel}]
`
