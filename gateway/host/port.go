package host

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// PortTaken adds to an error of a port that is in use who has it, as far as /proc
// shows: network is "udp" or "tcp". Other errors it leaves alone.
func PortTaken(err error, network string, port uint16) error {
	if !errors.Is(err, syscall.EADDRINUSE) {
		return err
	}
	if who := portOwner("/proc", network, port); who != "" {
		return fmt.Errorf("%w: %s port %d is in use by %s", err, strings.ToUpper(network), port, who)
	}
	return err
}

// portOwner names the process with the port, "" when nothing has it any more.
func portOwner(proc, network string, port uint16) string {
	for _, file := range []string{network, network + "6"} {
		// The thread's own, not the process's: the two may be in different namespaces.
		table, err := os.ReadFile(filepath.Join(proc, "thread-self/net", file))
		if err != nil {
			continue
		}
		inode, uid, found := socketOn(string(table), port)
		if !found {
			continue
		}
		if who := holderOf(proc, inode); who != "" {
			return who
		}
		// The kernel's own sockets, of tunnels, cannot be told from those of a hidden process.
		return fmt.Sprintf("a process of user %s outside of this container, or a tunnel device (ss -lntup and ip -d link on the host show it)", uid)
	}
	return ""
}

// socketOn finds who has a port in a table of /proc/net, whose columns proc(5) has:
// the local address in hexadecimal, the user, the inode. A socket that only waits for
// stragglers has no inode.
func socketOn(table string, port uint16) (inode, uid string, found bool) {
	suffix := fmt.Sprintf(":%04X", port)
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) > 9 && strings.HasSuffix(f[1], suffix) && f[9] != "0" {
			return f[9], f[7], true
		}
	}
	return "", "", false
}

// holderOf names the process that has the socket open.
func holderOf(proc, inode string) string {
	fds, _ := filepath.Glob(filepath.Join(proc, "[0-9]*/fd/*"))
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err != nil || to != "socket:["+inode+"]" {
			continue
		}
		pid := filepath.Base(filepath.Dir(filepath.Dir(fd)))
		name, _ := os.ReadFile(filepath.Join(proc, pid, "comm"))
		if n, _ := strconv.Atoi(pid); n == os.Getpid() {
			return "this process itself"
		}
		return fmt.Sprintf("%s (process %s)", strings.TrimSpace(string(name)), pid)
	}
	return ""
}
