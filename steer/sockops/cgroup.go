package sockops

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
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
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w: the agent needs the capabilities BPF and NET_ADMIN, and a seccomp profile that lets it call bpf", err)
	case errors.Is(err, ebpf.ErrNotSupported), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
		return fmt.Errorf("%w: the kernel needs to be Linux 6.1 or later, built with CONFIG_BPF_SYSCALL and CONFIG_CGROUP_BPF", err)
	}
	return err
}
