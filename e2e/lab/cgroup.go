package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// cgroupOf is where a lab of the prefix has its control group, in cgroup v2: the
// machine's, or the one beside version 1.
func cgroupOf(prefix string) (string, error) {
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var fs unix.Statfs_t
		if err := unix.Statfs(root, &fs); err == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC {
			return filepath.Join(root, prefix), nil
		}
	}
	return "", fmt.Errorf("lab %s: no cgroup v2 is mounted on /sys/fs/cgroup", prefix)
}

// joinCgroup moves this process, whose sockets the pods' are, into the lab's control
// group, so that agents change nothing of other labs' pods, which have the same
// addresses. It gives the agents' flags.
func (l *Lab) joinCgroup() ([]string, error) {
	path, err := cgroupOf(l.Options.Prefix)
	if err != nil {
		return nil, err
	}
	before, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, fmt.Errorf("find this process's control group: %w", err)
	}
	_, home, _ := strings.Cut("\n"+string(before), "\n0::")
	home, _, _ = strings.Cut(home, "\n")
	move := func(to string) error {
		if err := os.WriteFile(filepath.Join(to, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0o644); err != nil {
			return fmt.Errorf("move this process to control group %s: %w", to, err)
		}
		return nil
	}
	if err := os.Mkdir(path, 0o755); err != nil && !os.IsExist(err) {
		return nil, fmt.Errorf("make a control group: %w", err)
	}
	if err := move(path); err != nil {
		return nil, err
	}
	l.leaveCgroup = func() error { return move(filepath.Join(filepath.Dir(path), home)) }
	// `ip netns exec` gives a program a /sys of its own, without control groups.
	seen := fmt.Sprintf("/proc/%d/root%s", os.Getpid(), path)
	return []string{"--syn-retry", l.Options.SYNRetry.String(), "--cgroup", seen}, nil
}
