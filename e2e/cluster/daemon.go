package cluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// daemon is a program that runs until it is killed, and can be started again as it was.
type daemon struct {
	name string
	log  string
	// command makes the program anew, for each start.
	command func() *exec.Cmd

	cmd  *exec.Cmd
	done chan struct{}
	err  error
}

// start starts the program in a session of its own; its output is added to the log.
func (d *daemon) start() error {
	if d.running() {
		return fmt.Errorf("start %s: it runs", d.name)
	}
	out, err := os.OpenFile(d.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("start %s: %w", d.name, err)
	}
	defer out.Close()
	cmd := d.command()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", d.name, err)
	}
	d.cmd, d.done = cmd, make(chan struct{})
	go func(done chan struct{}) {
		d.err = cmd.Wait()
		close(done)
	}(d.done)
	return nil
}

func (d *daemon) running() bool {
	if d.cmd == nil {
		return false
	}
	select {
	case <-d.done:
		return false
	default:
		return true
	}
}

// kill ends the program at once and waits until it is gone.
func (d *daemon) kill() error {
	if !d.running() {
		return nil
	}
	if err := d.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill %s: %w", d.name, err)
	}
	select {
	case <-d.done:
		return nil
	case <-time.After(10 * time.Second):
		return fmt.Errorf("kill %s: pid %d does not end", d.name, d.cmd.Process.Pid)
	}
}

// ended says how a program ended that ought to run.
func (d *daemon) ended() error {
	if d.running() {
		return nil
	}
	return fmt.Errorf("%s has ended: %w, see %s", d.name, d.err, d.log)
}
