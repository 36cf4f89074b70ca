package sockops

import (
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/steer/bpf"
)

// hierarchy is the folder of cgroup v2: the one given, or, on a host that has both
// versions, the one that systemd mounts inside of it.
func hierarchy(given string) (string, error) {
	for _, path := range []string{given, filepath.Join(given, "unified")} {
		var fs unix.Statfs_t
		if err := unix.Statfs(path, &fs); err == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC {
			return path, nil
		}
	}
	return "", fmt.Errorf("--cgroup %s: no cgroup v2 is mounted there; give the folder where the node's is (usually /sys/fs/cgroup), mounted into the agent's container", given)
}

// explain adds the cure.
func explain(err error) error {
	return bpf.Explain(err, "6.1", "CONFIG_BPF_SYSCALL and CONFIG_CGROUP_BPF")
}
