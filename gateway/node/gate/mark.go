package gate

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Mark is a file that says that the node's rules are in the kernel, since this boot.
type Mark string

// RunDir is where the mark is. A boot empties it; where it does not, the mark says of
// which boot it is.
const RunDir = "/run/sallyport"

func markIn(dir string) Mark { return Mark(filepath.Join(dir, "steering")) }

const bootID = "/proc/sys/kernel/random/boot_id"

// Set the mark.
func (m Mark) Set() error {
	boot, err := os.ReadFile(bootID)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(string(m)), 0o755)
	}
	if err == nil {
		err = place(string(m), 0o644, boot)
	}
	if err != nil {
		return fmt.Errorf("say to the CNI that the node's rules are in place: %w", err)
	}
	return nil
}

// Check is nil when the mark is of this boot.
func (m Mark) Check() error {
	boot, err := os.ReadFile(bootID)
	if err != nil {
		return err
	}
	said, err := os.ReadFile(string(m))
	if err == nil && !bytes.Equal(said, boot) {
		err = fmt.Errorf("%s is of another boot", m)
	}
	return err
}

// tick is how often Await looks.
const tick = 100 * time.Millisecond

// Await the mark; the error is that of the last look.
func (m Mark) Await(wait time.Duration) error {
	for end := time.Now().Add(wait); ; time.Sleep(tick) {
		if err := m.Check(); err == nil || time.Now().After(end) {
			return err
		}
	}
}

func (m Mark) clear() error {
	err := os.Remove(string(m))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	_ = os.Remove(filepath.Dir(string(m))) // where it is a mount, or has more in it, it stays
	return err
}
