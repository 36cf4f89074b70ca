// Package hang makes a single thread of a program hang, as a driver or a lock does that keeps it in
// the kernel: it runs no further, and the other threads go on.
//
// A process of its own holds it, by ptrace(2): a process that waits for its children, as tests
// do, would take the stops of whom it traces for their end.
package hang

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
)

// env gives a tracer the process and, behind a space, the thread or the VIP.
const env = "SALLYPORT_HANG"

// Main is the tracer, when this process is one; other programs go on. Who calls Thread or Renewal
// calls it first.
func Main() {
	what := os.Getenv(env)
	if what == "" {
		return
	}
	if err := hold(what); err != nil {
		fmt.Fprintln(os.Stderr, "hold a thread:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// Hung is a thread that hangs.
type Hung struct {
	tracer *exec.Cmd
	say    io.WriteCloser
	heard  *bufio.Reader
}

// Thread has a thread of a process hang wherever it is.
func Thread(pid, tid int) (*Hung, error) { return start(pid, strconv.Itoa(tid)) }

// Renewal has the thread of a gateway hang that renews the fence for the VIP, in the last call of it, which
// opens ARP, before that has done anything. Until it comes all threads are slow.
func Renewal(pid int, vip string) (*Hung, error) { return start(pid, vip) }

func start(pid int, what string) (*Hung, error) {
	h := &Hung{tracer: exec.Command(os.Args[0])}
	h.tracer.Env = append(os.Environ(), fmt.Sprintf("%s=%d %s", env, pid, what))
	h.tracer.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	h.tracer.Stderr = os.Stderr
	say, err := h.tracer.StdinPipe()
	if err != nil {
		return nil, err
	}
	heard, err := h.tracer.StdoutPipe()
	if err != nil {
		return nil, err
	}
	h.say, h.heard = say, bufio.NewReader(heard)
	if err := h.tracer.Start(); err != nil {
		return nil, fmt.Errorf("start a tracer: %w", err)
	}
	if err := h.done(); err != nil {
		return nil, errors.Join(err, h.LetGo())
	}
	return h, nil
}

func (h *Hung) done() error {
	if line, err := h.heard.ReadString('\n'); err != nil || line != "done\n" {
		return fmt.Errorf("the tracer says %q: %w", line, err)
	}
	return nil
}

// Finish lets the call in which the thread hangs do its work, and no more: it does not return.
func (h *Hung) Finish() error {
	if _, err := io.WriteString(h.say, "finish\n"); err != nil {
		return err
	}
	return h.done()
}

// LetGo lets the thread go on.
func (h *Hung) LetGo() error { return errors.Join(h.say.Close(), h.tracer.Wait()) }

// Threads of a process.
func Threads(pid int) (tids []int, err error) {
	names, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	for _, name := range names {
		if tid, err := strconv.Atoi(filepath.Base(name)); err == nil {
			tids = append(tids, tid)
		}
	}
	return tids, err
}
