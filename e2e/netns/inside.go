package netns

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// where `ip netns` keeps its names (iproute2, NETNS_RUN_DIR).
const nameDir = "/run/netns"

// share makes the folder of the names a mount that others see the changes of, as
// `ip netns` does before its first name. Who made names without would have them hidden
// by that mount: they could not be removed any more, and programs with mounts of their
// own would hold what was removed.
func share() error {
	if err := os.MkdirAll(nameDir, 0o755); err != nil {
		return err
	}
	dir, err := os.Open(nameDir)
	if err != nil {
		return err
	}
	defer dir.Close()
	// ip holds the same lock: two at a time would put one mount over the other.
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", nameDir, err)
	}
	err = unix.Mount("", nameDir, "none", unix.MS_SHARED|unix.MS_REC, "")
	if errors.Is(err, unix.EINVAL) { // it is no mount yet
		if err := unix.Mount(nameDir, nameDir, "none", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("mount %s: %w", nameDir, err)
		}
		err = unix.Mount("", nameDir, "none", unix.MS_SHARED|unix.MS_REC, "")
	}
	if err != nil {
		return fmt.Errorf("share %s: %w", nameDir, err)
	}
	return nil
}

// FD is the open file of the namespace, valid until Close.
func (n *NS) FD() int { return int(n.handle) }

// Netlink opens a route netlink socket inside the namespace; the caller closes it.
func (n *NS) Netlink() (*netlink.Handle, error) {
	h, err := netlink.NewHandleAt(n.handle, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink in %s: %w", n.Name, err)
	}
	return h, nil
}

// Sysctls sets values under /proc/sys/net of the namespace, each given as
// "path=value".
func (n *NS) Sysctls(settings ...string) error {
	return n.Do(func() error {
		for _, s := range settings {
			path, value, _ := strings.Cut(s, "=")
			if err := os.WriteFile(filepath.Join("/proc/sys/net", path), []byte(value), 0o644); err != nil {
				return fmt.Errorf("set sysctl %s in %s: %w", s, n.Name, err)
			}
		}
		return nil
	})
}

// Names lists the namespaces whose name begins with the prefix.
func Names(prefix string) ([]string, error) {
	entries, err := os.ReadDir(nameDir)
	if os.IsNotExist(err) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("list network namespaces: %w", err)
	}
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// Pids lists the processes that live in the named namespace, other than the
// caller's own.
func Pids(name string) ([]int, error) {
	var want, have unix.Stat_t
	if err := unix.Stat(filepath.Join(nameDir, name), &want); err != nil {
		return nil, fmt.Errorf("look at network namespace %s: %w", name, err)
	}
	procs, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var pids []int
	for _, p := range procs {
		pid, err := strconv.Atoi(p.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		// A process may end between the listing and the look: that is no error.
		if unix.Stat(fmt.Sprintf("/proc/%d/ns/net", pid), &have) == nil && have.Ino == want.Ino && have.Dev == want.Dev {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// FreeHandle closes the open file of the namespace and leaves the namespace alone.
func (n *NS) FreeHandle() error { return n.handle.Close() }
