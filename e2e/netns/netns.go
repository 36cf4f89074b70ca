// Package netns runs code and programs inside network namespaces made for a test
// or the lab, so that no packet of theirs reaches the host's own network.
package netns

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"testing"

	"github.com/vishvananda/netns"
)

// NS is a named network namespace, visible to `ip netns`.
type NS struct {
	Name   string
	handle netns.NsHandle
	own    bool
}

// Own is the namespace that the process is in anyway; entering it needs no privilege.
func Own() *NS { return &NS{Name: "own", handle: netns.None(), own: true} }

// New makes a namespace, first removing one of that name which an interrupted run
// left behind.
func New(name string) (*NS, error) {
	if err := share(); err != nil {
		return nil, fmt.Errorf("make network namespace %s: %w", name, err)
	}
	_ = netns.DeleteNamed(name)
	ns := &NS{Name: name}
	err := onOwnThread(func() error {
		h, err := netns.NewNamed(name)
		ns.handle = h
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("make network namespace %s: %w", name, err)
	}
	return ns, nil
}

// Open gives a namespace that exists.
func Open(name string) (*NS, error) {
	h, err := netns.GetFromName(name)
	if err != nil {
		return nil, fmt.Errorf("open network namespace %s: %w", name, err)
	}
	return &NS{Name: name, handle: h}, nil
}

// Do runs f inside the namespace. Sockets that f opens stay in it; goroutines
// that f starts do not run in it.
func (n *NS) Do(f func() error) error {
	if n.own {
		return f()
	}
	return onOwnThread(func() error {
		if err := netns.Set(n.handle); err != nil {
			return fmt.Errorf("enter network namespace %s: %w", n.Name, err)
		}
		return f()
	})
}

// Command is a program to be run inside the namespace. Its pid is the program's own.
func (n *NS) Command(name string, args ...string) *exec.Cmd {
	return exec.Command("ip", append([]string{"netns", "exec", n.Name, name}, args...)...)
}

// Run runs a program inside the namespace to its end.
func (n *NS) Run(name string, args ...string) (string, error) {
	out, err := n.Command(name, args...).CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("in %s: %s %v: %w: %s", n.Name, name, args, err, out)
	}
	return string(out), nil
}

// Close removes the namespace; its interfaces go with it.
func (n *NS) Close() error {
	return errors.Join(n.handle.Close(), netns.DeleteNamed(n.Name))
}

// onOwnThread runs f on an OS thread that is thrown away afterwards, so that a
// change of namespace cannot reach other goroutines.
func onOwnThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the runtime ends the thread with the goroutine
		done <- f()
	}()
	return <-done
}

// Test moves the test into a fresh, nameless namespace with lo up, until it ends.
// The test must not open sockets in goroutines of its own and expect them there.
// It skips, saying so, when not root: `make test` runs as root.
func Test(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root for a network namespace")
	}
	runtime.LockOSThread()
	before, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	fresh, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(netns.Set(before), fresh.Close(), before.Close()); err != nil {
			t.Fatalf("leave the test's network namespace: %v", err)
		}
		runtime.UnlockOSThread()
	})
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		t.Fatalf("bring lo up: %v: %s", err, out)
	}
}
