package guide

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Reader does what a page says.
type Reader struct {
	Dir string   // where the page's commands are run: the repository
	Env []string // of the reader; what a block exports is the next one's, too
	// Command makes the command for a host of the page, "" for the reader's own.
	Command func(host, name string, args ...string) (*exec.Cmd, error)
	// Patience is how long each block may take, and a shown output may need to come.
	Patience time.Duration
	// Section is the heading of the part that is read; "": the whole page.
	Section string
	// Then is asked when all is done, before what runs in the background ends; nil: nothing is.
	Then func() error
	// Tell hears each block and what it said.
	Tell func(format string, args ...any)
}

// Read runs the page's blocks in order, and ends those in the background behind the last.
// The first that fails, or says something else than the page shows, is the error.
func (r Reader) Read(ctx context.Context, file string) (err error) {
	page, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	text := string(page)
	if r.Section != "" {
		if text, err = Section(text, r.Section); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	blocks, err := Blocks(text)
	if err == nil && len(blocks) == 0 {
		err = errors.New("it has no commands")
	}
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	state, err := os.MkdirTemp("", "sallyport-guide-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(state)
	var running []*terminal
	defer func() {
		for _, t := range running {
			err = errors.Join(err, t.end())
		}
	}()
	for _, b := range blocks {
		r.Tell("%s:%d %s\n%s", filepath.Base(file), b.Line, b.Host, b.Commands)
		if b.File != "" {
			if err := r.write(b); err != nil {
				return fmt.Errorf("%s:%d: %w", file, b.Line, err)
			}
			continue
		}
		t, err := r.run(ctx, b, state)
		if t != nil && b.Background {
			running = append(running, t)
		}
		if err != nil {
			return fmt.Errorf("%s:%d: %w\n%s", file, b.Line, err, b.Commands)
		}
	}
	if r.Then != nil {
		return r.Then()
	}
	return nil
}

// write is what somebody does with an editor.
func (r Reader) write(b Block) error {
	file := filepath.Join(r.Dir, b.File)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, []byte(b.Commands), 0o644)
}

// run is one block, with the variables that those before it exported.
func (r Reader) run(ctx context.Context, b Block, state string) (*terminal, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, r.Patience, fmt.Errorf("not within %v", r.Patience))
	defer cancel()
	for {
		t, err := r.open(b, state)
		if err != nil {
			return nil, err
		}
		if b.Background {
			return t, t.await(ctx, func() bool { return b.Shown(t.said.String()) })
		}
		if err := t.await(ctx, t.ended); err != nil {
			return nil, errors.Join(err, t.end())
		}
		said := t.said.String()
		r.Tell("%s", said)
		switch {
		case t.err == nil && b.Shown(said):
			return t, nil
		case b.Again && ctx.Err() == nil:
		case t.err != nil:
			return nil, fmt.Errorf("%w: %s", t.err, said)
		default:
			return nil, fmt.Errorf("it says:\n%s\nand the page shows:\n%s", said, b.Shows)
		}
		select { // nobody types faster
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// open starts a block. It has the shell of its own, which leaves its variables to the next.
func (r Reader) open(b Block, state string) (*terminal, error) {
	exported := filepath.Join(state, "exported"+b.Host)
	script := fmt.Sprintf("[ ! -e %[1]s ] || . %[1]s\nset -euo pipefail\n%s", exported, b.Commands)
	if !b.Background {
		script += "export -p >" + exported + "\n"
	}
	cmd, err := r.Command(b.Host, "bash", "-c", script)
	if err != nil {
		return nil, err
	}
	t := &terminal{cmd: cmd, done: make(chan struct{})}
	if cmd.Env == nil {
		cmd.Env = os.Environ()
	}
	cmd.Dir, cmd.Env = r.Dir, append(cmd.Env, r.Env...)
	cmd.Stdout, cmd.Stderr = &t.said, &t.said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // as a terminal's, which Ctrl-C reaches whole
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() { // ends with the command
		t.err = cmd.Wait()
		close(t.done)
	}()
	return t, nil
}

// terminal is where a block runs.
type terminal struct {
	cmd  *exec.Cmd
	said output
	done chan struct{}
	err  error // of the command, once done
}

func (t *terminal) ended() bool {
	select {
	case <-t.done:
		return true
	default:
		return false
	}
}

func (t *terminal) await(ctx context.Context, condition func() bool) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-t.done:
			if !condition() {
				return fmt.Errorf("it ended (%v) and says: %s", t.err, &t.said)
			}
		case <-ctx.Done():
			return fmt.Errorf("%w, it says: %s", context.Cause(ctx), &t.said)
		case <-tick.C:
		}
	}
	return nil
}

// end is Ctrl-C.
func (t *terminal) end() error {
	if t.ended() {
		return nil
	}
	if err := syscall.Kill(-t.cmd.Process.Pid, syscall.SIGINT); err != nil {
		return fmt.Errorf("end what runs in the background: %w", err)
	}
	const patience = 30 * time.Second
	select {
	case <-t.done:
		return nil
	case <-time.After(patience):
		return errors.Join(fmt.Errorf("it does not end within %v after Ctrl-C: %s", patience, strings.Join(t.cmd.Args, " ")),
			syscall.Kill(-t.cmd.Process.Pid, syscall.SIGKILL))
	}
}

// output is written by a command and read meanwhile.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}
