package cluster

import (
	_ "embed"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/sallyport/sallyport/e2e/lab"
)

//go:embed node.sh
var nodeScript string

// podCIDRs holds the ranges of all nodes' pods.
var podCIDRs = netip.MustParsePrefix("10.244.0.0/16")

// The kubelet judges a node by the machine's whole disk, which is not the node's; the
// lease is short, so that a dead node is seen within seconds. It reports often: one that is
// taken for dead when the API server comes back knows nothing of it until its watches are back.
const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
cgroupDriver: cgroupfs
cgroupRoot: %[1]s
cgroupsPerQOS: true
enforceNodeAllocatable: [pods]
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: %[2]q}}
authorization: {mode: Webhook}
address: 0.0.0.0
oomScoreAdj: 0
failSwapOn: false
resolvConf: /etc/resolv.conf
clusterDomain: cluster.local
volumePluginDir: /var/lib/kubelet/volumeplugins
evictionHard: {memory.available: 100Mi, nodefs.available: 1%%, imagefs.available: 1%%, nodefs.inodesFree: 1%%}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
nodeStatusUpdateFrequency: 3s
nodeStatusReportFrequency: 10s
nodeLeaseDurationSeconds: 8
syncFrequency: 10s
maxPods: 110
`

// conntrack's sizes are the machine's, not to be changed by a node.
const proxyConfig = `apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {kubeconfig: %q}
mode: %s
clusterCIDR: %s
hostnameOverride: %s
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
iptables: {minSyncPeriod: 0s, syncPeriod: 10s}
nftables: {minSyncPeriod: 0s, syncPeriod: 10s}
`

const containerdConfig = `version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
oom_score = 0
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.internal.v1.opt"]
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = %q
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/opt/cni/bin"
    conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
`

// Debian's containernetworking-plugins.
const cniPlugins = "/usr/lib/cni"

// nodeFiles writes what node j's programs are configured by.
func (c *Cluster) nodeFiles(j int) error {
	name, dir := lab.NodeName(j), c.nodeDir(j)
	kubeconfig, proxy := filepath.Join(dir, "kubelet.kubeconfig"), filepath.Join(dir, "proxy.kubeconfig")
	files := map[string]string{
		"etc-containerd/config.toml":        fmt.Sprintf(containerdConfig, PodImage),
		"etc-cni/net.d/10-cluster.conflist": c.Options.CNI.Config(j),
		"kubelet.yaml":                      fmt.Sprintf(kubeletConfig, "/"+c.cgroup(j), c.API.CAFile),
		"proxy.yaml":                        fmt.Sprintf(proxyConfig, proxy, c.Options.ProxyMode, podCIDRs, name),
		"kubelet.options": lines("--config", filepath.Join(dir, "kubelet.yaml"), "--kubeconfig", kubeconfig,
			"--hostname-override", name, "--node-ip", lab.OutsideAddr(j).String()),
		"kube-proxy.options": lines("--config", filepath.Join(dir, "proxy.yaml")),
		"node.sh":            nodeScript,
	}
	var daemons []string
	if c.Options.CNI.Daemons != nil {
		for _, d := range c.Options.CNI.Daemons(c, j, c.plugins) {
			daemons = append(daemons, d.Name)
			files[d.Name+".program"], files[d.Name+".options"] = d.Command[0], lines(d.Command[1:]...)
		}
	}
	files["daemons"] = lines(daemons...)
	for file, text := range files {
		path := filepath.Join(dir, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("make the folders of %s: %w", name, err)
		}
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			return fmt.Errorf("write the files of %s: %w", name, err)
		}
	}
	if err := c.nodePlugins(dir); err != nil {
		return fmt.Errorf("give %s the plugins of the CNI: %w", name, err)
	}
	if err := c.kubelets[j-1].kubeconfig(kubeconfig, c.API.URL, c.API.CAFile); err != nil {
		return err
	}
	return c.proxy.kubeconfig(proxy, c.API.URL, c.API.CAFile)
}

// nodePlugins puts the CNI's plugins into a folder of the node's own.
func (c *Cluster) nodePlugins(dir string) error {
	bin := filepath.Join(dir, "opt-cni", "bin")
	entries, err := os.ReadDir(c.plugins)
	errs := []error{err, os.MkdirAll(bin, 0o755)}
	for _, e := range entries {
		errs = append(errs, os.Symlink(filepath.Join(c.plugins, e.Name()), filepath.Join(bin, e.Name())))
	}
	return errors.Join(errs...)
}

func lines(words ...string) string { return strings.Join(words, "\n") + "\n" }
