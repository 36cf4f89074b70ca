// Package netns runs a program in another network namespace of this host.
package netns

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Output runs the command in the namespace, given by its name for ip netns or its
// path, and gives what it prints.
func Output(cmd *exec.Cmd, netns string) ([]byte, error) {
	path := netns
	if !strings.Contains(netns, "/") {
		path = filepath.Join("/run/netns", netns)
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open network namespace %s: %w: ip netns list names those of this host", netns, err)
	}
	defer unix.Close(fd)
	type result struct {
		out []byte
		err error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
			done <- result{err: fmt.Errorf("enter network namespace %s: %w: it takes root", netns, err)}
			return
		}
		out, err := cmd.Output() // the child begins where this thread is
		done <- result{out, err}
	}()
	r := <-done
	return r.out, r.err
}
