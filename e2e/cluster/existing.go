package cluster

import (
	"fmt"
	"os"
	"os/exec"
)

// Existing is a cluster that somebody has, by a kubeconfig of its administrator: kubectl
// and helm work on it, from PATH. What they remember is kept in the folder.
func Existing(kubeconfig, dir string) (*APIServer, error) {
	if _, err := os.Stat(kubeconfig); err != nil {
		return nil, fmt.Errorf("use an existing cluster: %w", err)
	}
	for _, tool := range []string{"kubectl", "helm"} {
		if _, err := exec.LookPath(tool); err != nil {
			return nil, fmt.Errorf("use an existing cluster: %w (install it)", err)
		}
	}
	return &APIServer{Kubeconfig: kubeconfig, Dir: dir, place: place{command: exec.Command}}, nil
}
