// Package chromium drives a headless Chromium by the DevTools protocol, for tests of
// pages as people see them. It speaks over a pipe, so that the browser may be in another
// network namespace than the test.
package chromium

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Command makes a program ready to be started, where the browser is to be: as
// exec.Command does, or in a network namespace.
type Command func(name string, args ...string) *exec.Cmd

// names that distributions give it.
var names = []string{"chromium", "chromium-browser", "google-chrome"}

// Browser is one that runs.
type Browser struct {
	cmd    *exec.Cmd
	to     *os.File
	folder string
	ended  chan struct{}

	mu      sync.Mutex
	last    int
	waiting map[int]chan answer
	closed  error               // why there is no answer any more
	said    map[string][]string // by session
	asked   map[string][]string
}

type answer struct {
	ID        int
	SessionID string
	Method    string
	Params    json.RawMessage
	Result    json.RawMessage
	Error     *struct{ Message string }
}

// Need gives Chromium's path, or skips where it is not installed, saying so.
func Need(t testing.TB) string {
	t.Helper()
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Skip("needs Chromium: install the packages chromium and fonts-dejavu-core")
	return ""
}

// Test gives the test a browser that ends with it.
func Test(t testing.TB, command Command) *Browser {
	t.Helper()
	b, err := start(Need(t), command)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Errorf("end Chromium: %v", err)
		}
	})
	return b
}

func start(path string, command Command) (*Browser, error) {
	folder, err := os.MkdirTemp("", "sallyport-chromium-")
	if err != nil {
		return nil, err
	}
	in, to, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	from, out, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	b := &Browser{to: to, folder: folder, ended: make(chan struct{}), waiting: map[int]chan answer{}, said: map[string][]string{}, asked: map[string][]string{}}
	// Pages under test are ours, and root has no other way to run it.
	b.cmd = command(path, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars",
		"--disable-background-networking", "--disable-component-update", "--disable-extensions", "--force-color-profile=srgb",
		"--font-render-hinting=none", "--remote-debugging-pipe", "--user-data-dir="+folder, "about:blank")
	b.cmd.ExtraFiles = []*os.File{in, out}                  // 3 and 4
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // its many processes end together
	var noise bytes.Buffer
	b.cmd.Stderr = &noise
	if err := b.cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", path, err), os.RemoveAll(folder))
	}
	in.Close()
	out.Close()
	go func() {
		defer close(b.ended)
		b.read(from)
		from.Close()
	}()
	return b, nil
}

// read takes messages, each ended by a zero byte.
func (b *Browser) read(from io.Reader) {
	r := bufio.NewReader(from)
	for {
		text, err := r.ReadBytes(0)
		var a answer
		if err == nil {
			err = json.Unmarshal(text[:len(text)-1], &a)
		}
		b.mu.Lock()
		if err != nil {
			b.closed = fmt.Errorf("the browser has ended: %w", err)
			for _, c := range b.waiting {
				close(c)
			}
			b.waiting = map[int]chan answer{}
			b.mu.Unlock()
			return
		}
		if c := b.waiting[a.ID]; c != nil {
			delete(b.waiting, a.ID)
			c <- a
		} else {
			b.note(a)
		}
		b.mu.Unlock()
	}
}

// patience is how long the browser may take for one command on a busy machine.
const patience = 60 * time.Second

// call has a command carried out; session is a page's, "" the browser's own.
func (b *Browser) call(session, method string, params, result any) error {
	b.mu.Lock()
	if b.closed != nil {
		b.mu.Unlock()
		return b.closed
	}
	b.last++
	id, done := b.last, make(chan answer, 1)
	b.waiting[id] = done
	text, err := json.Marshal(map[string]any{"id": id, "sessionId": session, "method": method, "params": params})
	if session == "" {
		text, err = json.Marshal(map[string]any{"id": id, "method": method, "params": params})
	}
	if err == nil {
		_, err = b.to.Write(append(text, 0))
	}
	b.mu.Unlock()
	if err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	select {
	case a, ok := <-done:
		switch {
		case !ok:
			return fmt.Errorf("%s: %w", method, b.closed)
		case a.Error != nil:
			return fmt.Errorf("%s: %s", method, a.Error.Message)
		case result == nil:
			return nil
		}
		return json.Unmarshal(a.Result, result)
	case <-time.After(patience):
		return fmt.Errorf("%s: no answer within %v", method, patience)
	}
}

// Close ends it and removes what it wrote.
func (b *Browser) Close() error {
	_ = b.call("", "Browser.close", map[string]any{}, nil) // it may have ended
	b.to.Close()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = b.cmd.Wait() // its exit status says nothing
	}()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
	}
	_ = syscall.Kill(-b.cmd.Process.Pid, syscall.SIGKILL) // what is left of its group
	<-ended
	<-b.ended
	return os.RemoveAll(b.folder)
}
