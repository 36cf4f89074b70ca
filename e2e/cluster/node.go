package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport/sallyport/e2e/lab"
)

func (c *Cluster) nodeDir(j int) string { return filepath.Join(c.dir, lab.NodeName(j)) }

// register makes the Node object with the range of its pods, as a cloud's controller does.
func (c *Cluster) register(ctx context.Context, j int) error {
	_, err := c.API.Kubectl(ctx, fmt.Sprintf(`apiVersion: v1
kind: Node
metadata: {name: %[1]s, labels: {kubernetes.io/hostname: %[1]s}}
spec: {podCIDR: %[2]s, podCIDRs: [%[2]s]}
`, lab.NodeName(j), lab.PodCIDR(j)), "apply", "-f", "-")
	return err
}

// AwaitRegistered waits for the Node object that the kubelet of node j makes itself where
// it is not there, and gives it the range of its pods.
func (c *Cluster) AwaitRegistered(ctx context.Context, j int) error {
	return lab.AwaitEvery(ctx, 200*time.Millisecond, time.Minute, func() error {
		_, err := c.API.Kubectl(ctx, "", "patch", "node", lab.NodeName(j), "--type", "merge", "-p", fmt.Sprintf(`{"spec":{"podCIDR":%[1]q,"podCIDRs":[%[1]q]}}`, lab.PodCIDR(j)))
		return err
	})
}

// powerOn boots node j: its disk is as it was left, its network namespace new.
func (c *Cluster) powerOn(j int) error {
	if c.Options.CNI.Boot != nil {
		if err := c.Options.CNI.Boot(c.Lab, j); err != nil {
			return fmt.Errorf("boot %s: %w", lab.NodeName(j), err)
		}
	}
	if err := c.makeCgroups(j); err != nil {
		return err
	}
	dir := c.nodeDir(j)
	c.nodes[j-1] = &daemon{name: lab.NodeName(j), log: filepath.Join(dir, "init.log"), command: func() *exec.Cmd {
		args := []string{"--net=/run/netns/" + c.Lab.FullName(lab.NodeName(j)), "--",
			"unshare", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "--mount-proc", "--propagation", "slave",
			"bash", filepath.Join(dir, "node.sh"), "init", dir, c.API.programs, lab.NodeName(j), c.cgroup(j)}
		return exec.Command("nsenter", append(args, c.images...)...)
	}}
	if err := c.nodes[j-1].start(); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "pid"), []byte(strconv.Itoa(c.nodes[j-1].cmd.Process.Pid)), 0o644)
}

// PowerCut pulls node j's plug: no frame passes any more, then every process of it is
// killed. The time is that of the last moment at which a frame could pass.
func (c *Cluster) PowerCut(j int) (time.Time, error) {
	at, err := c.Lab.PowerCut(j)
	return at, errors.Join(err, c.nodes[j-1].kill())
}

// PowerOn boots node j after a power cut, with nothing in its kernel and its disk kept.
func (c *Cluster) PowerOn(j int) error {
	// The kubelet takes three seconds over each pod of before whose cgroup it finds.
	if err := errors.Join(lab.RemoveCgroups(c.cgroup(j)), c.Lab.Reboot(j), c.Lab.Restore(j)); err != nil {
		return err
	}
	return c.powerOn(j)
}

// In is a program inside of node j, in all of its namespaces.
func (c *Cluster) In(j int, name string, args ...string) (*exec.Cmd, error) {
	return inNode(c.nodeDir(j), name, args...)
}

// Run runs a program inside of node j to its end.
func (c *Cluster) Run(j int, name string, args ...string) (string, error) {
	cmd, err := c.In(j, name, args...)
	if err != nil {
		return "", err
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("in %s: %s %s: %w: %s", lab.NodeName(j), name, strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

// inNode finds the node's PID 1 as this machine numbers it: the only child of unshare.
func inNode(dir, name string, args ...string) (*exec.Cmd, error) {
	pid, err := os.ReadFile(filepath.Join(dir, "pid"))
	if err != nil {
		return nil, fmt.Errorf("find node %s: %w", filepath.Base(dir), err)
	}
	init, err := os.ReadFile(fmt.Sprintf("/proc/%[1]s/task/%[1]s/children", pid))
	if err != nil || len(init) == 0 {
		return nil, fmt.Errorf("node %s has no power", filepath.Base(dir))
	}
	return exec.Command("nsenter", append([]string{"-t", strings.TrimSpace(string(init)), "-a", "--", name}, args...)...), nil
}

// Programs of a node that can be killed alone.
const (
	Kubelet   = "kubelet"
	KubeProxy = "kube-proxy"
)

// KillOn kills a program of node j at once, with the node and its pods alive.
func (c *Cluster) KillOn(j int, program string) error {
	_, err := c.Run(j, "sh", "-c", "kill -9 $(cat /run/"+program+".pid)")
	return err
}

// StartOn starts a program of node j that was killed.
func (c *Cluster) StartOn(j int, program string) error {
	dir := c.nodeDir(j)
	_, err := c.Run(j, "bash", filepath.Join(dir, "node.sh"), "start", dir, c.API.programs, program)
	return err
}
