package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"

	"github.com/sallyport/sallyport/e2e/lab"
)

const (
	cgroupRoot = "/sys/fs/cgroup"
	version2   = cgroupRoot + "/unified"
)

// nodeShares is the weight of all pods of a node, as the kubelet weighs those of one with
// this machine's processors: a new cgroup would weigh as much as any one program beside it.
var nodeShares = 1024 * runtime.NumCPU()

// cgroup is node j's, under every controller. The lab removes those of its prefix.
func (c *Cluster) cgroup(j int) string {
	return filepath.Join(c.Lab.Options.Prefix, lab.NodeName(j))
}

// makeCgroups makes the root of node j's pods, which the kubelet demands to exist. A new
// cpuset is empty, and nothing can run in it, until it is filled (cpusets.rst). In version 2
// it is all that the node sees of the tree, whose root would be all nodes' and clusters'.
func (c *Cluster) makeCgroups(j int) error {
	controllers, err := filepath.Glob(cgroupRoot + "/*/tasks")
	if err != nil || len(controllers) == 0 {
		return errors.New("the cluster's nodes need cgroup v1 beside v2: boot with systemd.unified_cgroup_hierarchy=0, or use a cluster you have (E2E_KUBECONFIG)")
	}
	if _, err := os.Stat(version2); err == nil {
		if err := os.MkdirAll(filepath.Join(version2, c.cgroup(j)), 0o755); err != nil {
			return fmt.Errorf("make a cgroup of version 2: %w", err)
		}
	}
	for _, tasks := range controllers {
		root := filepath.Dir(tasks)
		path := root
		for i, part := range []string{c.Lab.Options.Prefix, lab.NodeName(j)} {
			path = filepath.Join(path, part)
			if err := os.MkdirAll(path, 0o755); err != nil {
				return fmt.Errorf("make cgroup %s: %w", path, err)
			}
			for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
				all, err := os.ReadFile(filepath.Join(root, file))
				if os.IsNotExist(err) {
					continue
				} else if err != nil {
					return fmt.Errorf("read cgroup %s: %w", root, err)
				}
				if err := os.WriteFile(filepath.Join(path, file), all, 0o644); err != nil {
					return fmt.Errorf("fill cgroup %s: %w", path, err)
				}
			}
			shares := nodeShares
			if i == 0 {
				shares *= c.Lab.Options.Nodes
			}
			weight := filepath.Join(path, "cpu.shares")
			if _, err := os.Stat(weight); err != nil {
				continue // another controller's
			}
			if err := os.WriteFile(weight, []byte(strconv.Itoa(shares)), 0o644); err != nil {
				return fmt.Errorf("weigh cgroup %s: %w", path, err)
			}
		}
	}
	return nil
}
