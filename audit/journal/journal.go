// Package journal keeps audit records in files, or hands them to the standard output,
// and reads them again. A disk that is full or gone costs records, which are counted,
// and nothing else.
package journal

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/sallyport/sallyport/audit"
)

// Stdout as Config.Path is the standard output.
const Stdout = "-"

// Config of a journal.
type Config struct {
	// Path of the file that is written. Full ones are beside it, their names have the time after it.
	Path string
	// Keep is how many bytes all files have together, at most.
	Keep int64
	// For is how long a file is kept after its last record; 0: until there is no room.
	For time.Duration
	// Gateway that writes.
	Gateway string
}

// LeastKeep is the least of Config.Keep.
const LeastKeep = 1 << 20

// Validate names what is wrong.
func (c Config) Validate() error {
	var errs []error
	if c.Path != Stdout && !filepath.IsAbs(c.Path) {
		errs = append(errs, fmt.Errorf("%s: give an absolute path, or - for the standard output", c.Path))
	}
	if c.Keep < LeastKeep {
		errs = append(errs, fmt.Errorf("keep %d bytes: give 1MiB or more", c.Keep))
	}
	if c.For < 0 {
		errs = append(errs, fmt.Errorf("keep for %v: give a time of zero or more", c.For))
	}
	return errors.Join(errs...)
}

const (
	// pieces that the files are of what is kept.
	pieces = 8
	// gathered are so many bytes before they are written without being asked for.
	gathered = 64 << 10
)

// Journal is for one goroutine, but for State.
//
// What it has written survives the end of the program, and of a full file also the
// host's. The file that is being written is left to the kernel to bring to the disk,
// within half a minute or so: syncing it would make everybody wait who shares the
// disk, such as the etcd of a control plane.
type Journal struct {
	cfg  Config
	file *os.File
	size int64
	day  string // that the file has records of
	buf  []byte
	n    int    // lines in buf
	owed uint64 // lost lines that are not on record yet

	mu    sync.Mutex
	state State
}

// State of a journal.
type State struct {
	Lines uint64 // written
	Lost  uint64 // that could not be
	Error string // why the last write failed, "" when it did not
}

// New touches nothing.
func New(cfg Config) *Journal { return &Journal{cfg: cfg} }

// State as of now.
func (j *Journal) State() State {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.state
}

// Add a record, and write when many have gathered.
func (j *Journal) Add(r *audit.Record, now time.Time) {
	j.buf = r.Append(j.buf)
	j.n++
	if len(j.buf) >= gathered {
		j.Flush(now)
	}
}

// Flush writes what has gathered. What cannot be written is lost.
func (j *Journal) Flush(now time.Time) {
	if len(j.buf) == 0 && j.owed == 0 {
		return
	}
	out, lines := j.buf, j.n
	if j.owed > 0 {
		lost := j.owed
		r := audit.Record{Time: now, Event: audit.LostEvent, Gateway: j.cfg.Gateway, Lost: &lost, Cause: "they could not be written"}
		out, lines = append(r.Append(nil), j.buf...), j.n+1
	}
	written, err := j.write(out, now)
	kept := bytes.Count(out[:written], []byte("\n"))
	lost := uint64(lines - kept)
	if j.owed > 0 {
		if kept > 0 {
			j.owed = 0
		} else {
			lost-- // the line that said so
		}
	}
	j.owed += lost
	j.buf, j.n = j.buf[:0], 0
	j.mu.Lock()
	defer j.mu.Unlock()
	j.state.Lines, j.state.Lost, j.state.Error = j.state.Lines+uint64(kept), j.state.Lost+lost, ""
	if err != nil {
		j.state.Error = err.Error()
	}
}

// write says how much of whole lines has been written.
func (j *Journal) write(b []byte, now time.Time) (int, error) {
	if j.cfg.Path == Stdout {
		n, err := os.Stdout.Write(b)
		return bytes.LastIndexByte(b[:n], '\n') + 1, err
	}
	if err := j.ready(int64(len(b)), now); err != nil {
		j.Close()
		return 0, err
	}
	n, err := j.file.Write(b)
	whole := bytes.LastIndexByte(b[:n], '\n') + 1
	if err != nil {
		// Half a line would spoil the next one.
		err = errors.Join(fmt.Errorf("write audit records: %w", err), j.file.Truncate(j.size+int64(whole)))
		j.Close()
	}
	j.size += int64(whole)
	return whole, err
}

// ready has the file open that the path names, with room for more.
func (j *Journal) ready(more int64, now time.Time) error {
	if j.file != nil && !j.named() { // moved or removed by somebody
		j.Close()
	}
	if j.file == nil {
		if err := j.open(now); err != nil {
			return err
		}
	}
	today := day(now)
	if j.size > 0 && (j.size+more > j.cfg.Keep/pieces || j.day != today) {
		if err := j.rotate(now); err != nil {
			return err
		}
	}
	j.day = today
	return nil
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }

func (j *Journal) named() bool {
	here, err := j.file.Stat()
	there, err2 := os.Stat(j.cfg.Path)
	return err == nil && err2 == nil && os.SameFile(here, there)
}

func (j *Journal) open(now time.Time) error {
	if err := os.MkdirAll(filepath.Dir(j.cfg.Path), 0o700); err != nil {
		return fmt.Errorf("make the folder of the audit log: %w", err)
	}
	f, err := os.OpenFile(j.cfg.Path, os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("open the audit log: %w", err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("it is no ordinary file")
	}
	if err == nil && info.Mode().Perm() != 0o600 {
		err = f.Chmod(0o600)
	}
	if err != nil {
		_ = f.Close()
		return fmt.Errorf("open the audit log %s: %w", j.cfg.Path, err)
	}
	j.file, j.size, j.day = f, info.Size(), day(info.ModTime())
	if err := j.mend(); err != nil {
		return err
	}
	return prune(j.cfg, now)
}

// mend ends a line that a host's sudden end cut short.
func (j *Journal) mend() error {
	if j.size == 0 {
		return nil
	}
	last := []byte{0}
	if _, err := j.file.ReadAt(last, j.size-1); err != nil {
		return fmt.Errorf("read the end of the audit log: %w", err)
	}
	if last[0] == '\n' {
		return nil
	}
	j.size++
	if _, err := j.file.WriteString("\n"); err != nil {
		return fmt.Errorf("end the last line of the audit log: %w", err)
	}
	return nil
}

func (j *Journal) rotate(now time.Time) error {
	if err := j.file.Sync(); err != nil {
		return fmt.Errorf("bring the audit log to the disk: %w", err)
	}
	j.Close()
	if err := os.Rename(j.cfg.Path, j.cfg.Path+"."+now.UTC().Format(stamp)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("put a full audit log aside: %w", err)
	}
	return j.open(now)
}

// Close the file. The next write opens it again.
func (j *Journal) Close() {
	if j.file != nil {
		_ = j.file.Close()
		j.file = nil
	}
}

// End writes what has gathered, and brings it to the disk.
func (j *Journal) End(now time.Time) {
	j.Flush(now)
	if j.file != nil {
		_ = j.file.Sync()
	}
	j.Close()
}
