package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/sallyport/sallyport/e2e/lab"
)

// CNI makes the network of the pods.
type CNI struct {
	Name string
	// Config gives node j's list of plugins, /etc/cni/net.d/10-cluster.conflist.
	Config func(j int) string
	// Boot prepares node j each time it boots, before its kubelet runs; nil for nothing.
	Boot func(l *lab.Lab, j int) error
	// Install is called once, when the API server is ready and no node is; nil for nothing.
	Install func(ctx context.Context, c *Cluster) error
	// Programs builds its programs, and gives the folder that they and the plugins are
	// in; nil for Debian's plugins alone.
	Programs func(ctx context.Context, progress io.Writer) (string, error)
	// Daemons of node j, from the folder of its programs, in the order in which they are
	// started at each boot, before the kubelet; nil for none.
	Daemons func(c *Cluster, j int, programs string) []Daemon
}

// Daemon is a program that a node runs from its boot on.
type Daemon struct {
	Name    string
	Command []string // its path and arguments
}

// Bridge is the bridge plugin, which masquerades what leaves the node's own pods, and
// routes between the nodes that somebody made by hand.
var Bridge = CNI{
	Name: "bridge",
	Config: func(j int) string {
		return fmt.Sprintf(`{"cniVersion": "1.0.0", "name": "cluster", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isDefaultGateway": true, "hairpinMode": true, "ipMasq": true,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": %q}]]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
`, lab.PodCIDR(j))
	},
	Boot: func(l *lab.Lab, j int) error {
		var errs []error
		for _, k := range l.Others(j) {
			errs = append(errs, l.Route(lab.NodeName(j), lab.PodCIDR(k), lab.OutsideAddr(k)))
		}
		return errors.Join(errs...)
	},
}
