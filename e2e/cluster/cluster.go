package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sallyport/sallyport/e2e/lab"
)

// Options describe a cluster. The zero value of every field is useful.
type Options struct {
	// Prefix of the cluster's namespaces, cgroups and folder; clusters with different
	// ones run side by side. Default "spk".
	Prefix string
	// Nodes from 1 to 9, default 3.
	Nodes int
	// VIPs that the partner admits, default 192.0.2.10.
	VIPs []netip.Addr
	// CNI of the nodes, default Bridge.
	CNI *CNI
	// ProxyMode of kube-proxy: iptables (default) or nftables.
	ProxyMode string
	// APIServer are further flags of the API server, such as --feature-gates.
	APIServer []string
	// Images are archives that every node imports at its first boot, beside the pods'.
	Images []string
	// Progress is told what takes long; default nothing.
	Progress io.Writer
}

// Cluster is a cluster that runs, on a lab of which it is the nodes.
type Cluster struct {
	Options Options
	Lab     *lab.Lab
	API     *APIServer

	dir      string
	plugins  string // folder of the CNI's
	images   []string
	kubelets []user
	proxy    user
	nodes    []*daemon
}

// Up starts a cluster and waits until its nodes are ready, first removing what an
// interrupted run of the same prefix left behind. The caller closes it; should the
// process die before, the lab's watcher removes everything.
func Up(ctx context.Context, o Options) (_ *Cluster, err error) {
	o.Prefix, o.ProxyMode = cmp.Or(o.Prefix, "spk"), cmp.Or(o.ProxyMode, "iptables")
	if o.CNI == nil {
		o.CNI = &Bridge
	}
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	if err := errors.Join(Equipped(), roomForWatches(cmp.Or(o.Nodes, 3))); err != nil {
		return nil, err
	}
	programs, err := Programs(ctx, o.Progress)
	if err != nil {
		return nil, err
	}
	plugins := cniPlugins
	if o.CNI.Programs != nil {
		if plugins, err = o.CNI.Programs(ctx, o.Progress); err != nil {
			return nil, fmt.Errorf("build the CNI %s: %w", o.CNI.Name, err)
		}
	}
	l, err := lab.Up(lab.Options{Prefix: o.Prefix, Nodes: o.Nodes, VIPs: o.VIPs, PodsPerNode: -1, BareNodes: true})
	if err != nil {
		return nil, err
	}
	c := &Cluster{Options: o, Lab: l, dir: filepath.Join(l.Options.Dir, "cluster"), plugins: plugins}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	return c, c.up(ctx, programs)
}

func (c *Cluster) up(ctx context.Context, programs string) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	begin, n := time.Now(), c.Lab.Options.Nodes
	say := func(what string) {
		_, _ = fmt.Fprintf(c.Options.Progress, "%4.1f s: %s\n", time.Since(begin).Seconds(), what)
	}
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return fmt.Errorf("make the cluster's folder: %w", err)
	}
	pod, err := podImage(ctx, c.dir)
	if err != nil {
		return err
	}
	c.images, c.nodes = append([]string{pod}, c.Options.Images...), make([]*daemon, n)
	if err := c.startControlPlane(ctx, programs); err != nil {
		return err
	}
	say("the API server is ready")
	if c.Options.CNI.Install != nil {
		if err := c.Options.CNI.Install(ctx, c); err != nil {
			return fmt.Errorf("install the CNI %s: %w", c.Options.CNI.Name, err)
		}
	}
	var g errgroup.Group
	for j := 1; j <= n; j++ {
		g.Go(func() error {
			return cmp.Or(c.nodeFiles(j), c.register(ctx, j), c.powerOn(j))
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if err := c.AwaitNodes(ctx); err != nil {
		return err
	}
	say("all nodes are ready")
	return nil
}

// AwaitNodes waits until every node is ready, the controllers know it, and pods can be
// made. A controller that has not seen the nodes yet calls a DaemonSet of none complete.
func (c *Cluster) AwaitNodes(ctx context.Context) error {
	if _, err := c.API.Kubectl(ctx, "", "wait", "--for=condition=Ready", "node", "--all", "--timeout=120s"); err != nil {
		return fmt.Errorf("wait for the nodes: %w, see the logs in %s", err, c.dir)
	}
	return lab.AwaitEvery(ctx, 200*time.Millisecond, time.Minute, func() error {
		taints, err := c.API.Kubectl(ctx, "", "get", "nodes", "-o", "jsonpath={.items[*].spec.taints[*].key}")
		for _, untold := range []string{"node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"} {
			if strings.Contains(taints, untold) {
				return fmt.Errorf("a node is ready and still has the taint %s", untold)
			}
		}
		if err != nil {
			return err
		}
		_, err = c.API.Kubectl(ctx, "", "get", "serviceaccount", "default")
		return err
	})
}

func (c *Cluster) startControlPlane(ctx context.Context, programs string) error {
	plane, err := placeOn(c.Lab)
	if err != nil {
		return err
	}
	for j := 1; j <= c.Lab.Options.Nodes; j++ {
		if err := c.Lab.Route(ControlPlane, lab.PodCIDR(j), lab.OutsideAddr(j)); err != nil {
			return err
		}
		c.kubelets = append(c.kubelets, newUser("system:node:"+lab.NodeName(j), "system:nodes"))
	}
	c.proxy = newUser("system:kube-proxy", "")
	controllers, scheduler := newUser("system:kube-controller-manager", ""), newUser("system:kube-scheduler", "")
	plane.options = append([]string{"--enable-aggregator-routing"}, c.Options.APIServer...)
	c.API = &APIServer{Dir: filepath.Join(c.dir, "plane"), programs: programs, daemons: map[string]*daemon{},
		users: append([]user{c.proxy, controllers, scheduler}, c.kubelets...), place: plane}
	if err := os.MkdirAll(c.API.Dir, 0o755); err != nil {
		return fmt.Errorf("make the control plane's folder: %w", err)
	}
	if err := c.API.up(ctx); err != nil {
		return err
	}
	return c.API.startControllers(ctx, controllers, scheduler)
}

// Close ends the cluster and removes it without a trace.
func (c *Cluster) Close() error {
	var errs []error
	for j, node := range c.nodes {
		if node != nil {
			_, err := c.Lab.PowerCut(j + 1)
			errs = append(errs, err, node.kill())
		}
	}
	if c.API != nil {
		errs = append(errs, c.API.killAll())
	}
	return errors.Join(append(errs, c.Lab.Close())...)
}
