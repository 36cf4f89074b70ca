package cluster

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/sallyport/sallyport/e2e/lab"
	"github.com/sallyport/sallyport/e2e/netns"
)

// Attached is a cluster that another process keeps up.
type Attached struct {
	dir      string
	plane    *netns.NS
	programs string
}

// Attach finds the cluster of the prefix.
func Attach(prefix, programs string) (*Attached, error) {
	l, err := lab.Attach(prefix)
	if err != nil {
		return nil, err
	}
	plane, err := l.Namespace(ControlPlane)
	if err != nil {
		return nil, fmt.Errorf("the lab of prefix %s is no cluster: %w", prefix, err)
	}
	return &Attached{dir: filepath.Join(l.Options.Dir, "cluster"), plane: plane, programs: programs}, nil
}

// Tool is kubectl or helm, as administrator.
func (a *Attached) Tool(name string, args ...string) *exec.Cmd {
	cmd := a.plane.Command(filepath.Join(a.programs, name), args...)
	plane := filepath.Join(a.dir, "plane")
	cmd.Env = toolEnv(filepath.Join(plane, kubeconfigFile), filepath.Join(plane, name))
	return cmd
}

// In is a program inside of node j.
func (a *Attached) In(j int, name string, args ...string) (*exec.Cmd, error) {
	return inNode(filepath.Join(a.dir, lab.NodeName(j)), name, args...)
}

// toolEnv keeps what kubectl and helm remember in a folder.
func toolEnv(kubeconfig, home string) []string {
	return append(os.Environ(), "KUBECONFIG="+kubeconfig, "KUBECACHEDIR="+home,
		"HELM_CACHE_HOME="+home, "HELM_CONFIG_HOME="+home, "HELM_DATA_HOME="+home)
}
