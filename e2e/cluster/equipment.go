package cluster

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"github.com/sallyport/sallyport/e2e/lab"
)

// commands that a cluster runs beyond the lab's, and what Debian has them in.
var commands = []struct{ path, pkg string }{
	{"containerd", "containerd"}, {"runc", "runc"}, {cniPlugins + "/bridge", "containernetworking-plugins"},
	{"debootstrap", "debootstrap"}, {"nsenter", "util-linux"}, {"setsid", "util-linux"},
}

// Equipped says what this machine and user lack for a cluster, and the cure.
func Equipped() error {
	errs := []error{lab.Equipped()}
	var missing, packages []string
	for _, c := range commands {
		if _, err := exec.LookPath(c.path); err != nil {
			missing, packages = append(missing, c.path), append(packages, c.pkg)
		}
	}
	if missing != nil {
		errs = append(errs, fmt.Errorf("missing for a cluster: %s (make deps-e2e, or apt-get install %s)",
			strings.Join(missing, " "), strings.Join(packages, " ")))
	}
	return errors.Join(errs...)
}
