package netns

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const childEnv = "NETNS_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) == "" {
		os.Exit(m.Run())
	}
	if err := firstName(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// firstName makes a name where nobody ever made one, and has ip make one behind it.
func firstName() (err error) {
	for unix.Unmount(nameDir, unix.MNT_DETACH) == nil { // the host's, in this process's view
	}
	if err := unix.Mount("none", "/run", "tmpfs", 0, ""); err != nil {
		return fmt.Errorf("an empty /run: %w", err)
	}
	ns, err := New("sally-first")
	if err != nil {
		return err
	}
	for _, args := range []string{"add sally-second", "exec sally-first true", "del sally-second"} {
		if out, err := exec.Command("ip", append([]string{"netns"}, strings.Fields(args)...)...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip netns %s: %w: %s", args, err, out)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	on := 0
	for line := range strings.Lines(string(mounts)) {
		// root, mount point, options, optional fields (proc_pid_mountinfo(5))
		if f := strings.Fields(line); f[4] == nameDir {
			if on++; !strings.HasPrefix(f[6], "shared:") {
				return fmt.Errorf("%s is not shared: %s", nameDir, line)
			}
		}
	}
	if on != 1 {
		return fmt.Errorf("%d mounts on %s, want 1", on, nameDir)
	}
	if err := ns.Close(); err != nil {
		return err
	}
	if left, err := Names("sally-"); err != nil || len(left) > 0 {
		return errors.Join(err, fmt.Errorf("%q are left", left))
	}
	return nil
}

// The mounts are the child's own: /run of the host is not touched.
func TestTheFirstNameIsMadeAsIPDoes(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root for a mount namespace")
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
