package lab

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	vishns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/e2e/netns"
)

// removeLeftovers removes every process, namespace and file of a lab of the prefix.
func removeLeftovers(prefix, dir string) error {
	names, err := netns.Names(prefix + "-")
	errs := []error{err}
	for _, name := range names {
		errs = append(errs, endProcesses(name))
	}
	for _, name := range names {
		if err := vishns.DeleteNamed(name); err != nil && !os.IsNotExist(err) {
			errs = append(errs, fmt.Errorf("remove network namespace %s: %w", name, err))
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		errs = append(errs, fmt.Errorf("remove the lab's folder: %w", err))
	}
	return errors.Join(append(errs, RemoveCgroups(prefix))...)
}

// RemoveCgroups removes those of a name, such as "spk/n1", under every controller.
func RemoveCgroups(name string) error {
	if out, err := exec.Command("sh", "-c", removeCgroups, "sh", name).CombinedOutput(); err != nil {
		return fmt.Errorf("remove the cgroups of %s: %w: %s", name, err, out)
	}
	return nil
}

// removeCgroups of the programs that make some of the lab's name, innermost first. One
// whose last process is still on its way out is busy for a moment.
const removeCgroups = `
for i in 1 2 3 4 5 6 7 8 9 10; do
	left=
	for path in /sys/fs/cgroup/*/"$1" /sys/fs/cgroup/"$1"; do
		[ -d "$path" ] || continue
		find "$path" -depth -type d -exec rmdir {} + 2>/dev/null || left=$path
	done
	[ -n "$left" ] || exit 0
	sleep 0.1
done
echo "$left is busy"; exit 1
`

// endProcesses kills what runs in a namespace and waits until it is gone.
func endProcesses(name string) error {
	deadline := time.Now().Add(5 * time.Second)
	for {
		pids, err := netns.Pids(name)
		if err != nil || len(pids) == 0 {
			return err
		}
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("processes %v in %s do not end", pids, name)
		}
		time.Sleep(2 * time.Millisecond) // a killed process has no event to wait for unless it is a child
	}
}

// guard is a process outside of the lab's own that removes the lab when its maker
// is gone, by whatever end: a panic, kill -9, Ctrl-C on `go test`. The lock tells
// a second lab of the same prefix to wait, or that the first is still in use.
type guard struct {
	lock *os.File
	cmd  *exec.Cmd
	pipe io.WriteCloser
}

// guardScript waits for "done" or for the end of its input, which comes when the
// maker has ended.
const guardScript = `
read -r line && [ "$line" = done ] && exit 0
for path in /run/netns/"$1"-*; do
	[ -e "$path" ] || continue
	name=${path##*/}
	for pid in $(ip netns pids "$name"); do kill -9 "$pid"; done
	ip netns del "$name"
done
rm -rf "$2" "$2.lock"
` + removeCgroups

func newGuard(prefix, dir string) (*guard, error) {
	f, err := takeLock(prefix, dir+".lock")
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("sh", "-c", guardScript, "sh", prefix, dir)
	cmd.ExtraFiles = []*os.File{f} // the lock is held until the guard has ended too
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	pipe, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("start the lab's guard: %w", err)
	}
	return &guard{lock: f, cmd: cmd, pipe: pipe}, nil
}

// takeLock waits a moment for a lab that is being taken down. Who holds the lock
// removes the file, so what was locked counts only if it is still the file's.
func takeLock(prefix, path string) (*os.File, error) {
	deadline := time.Now().Add(3 * time.Second)
	for {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return nil, fmt.Errorf("open the lab's lock: %w", err)
		}
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			mine, err := f.Stat()
			if current, cerr := os.Stat(path); err == nil && cerr == nil && os.SameFile(mine, current) {
				return f, nil
			}
		}
		_ = f.Close()
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("a lab of prefix %s is in use (%s is locked): take it down or choose another prefix", prefix, path)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// done ends the guard, leaving nothing for it to do.
func (g *guard) done() error {
	_, err := io.WriteString(g.pipe, "done\n")
	return errors.Join(err, g.pipe.Close(), g.cmd.Wait(), os.Remove(g.lock.Name()), g.lock.Close())
}
