package manifest

import (
	"context"
	"fmt"
	"hash/maphash"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/gateway"
	"github.com/sallyport/sallyport/gateway/objects"
)

// Times of the source. Tests shorten resync and patience, and lengthen quiet.
const (
	// settle gathers the events of one change: a writer's, or a tool's that writes
	// several files.
	settle = 2 * time.Millisecond
	// quietMost is how long deletions that go on and on wait at most.
	quietMost = 250 * time.Millisecond
	// linked is how long a file that appeared without having been written may yet
	// prove to be one that is about to be.
	linked = 20 * time.Millisecond
	// absence is how often a folder that is gone is looked for. It is taken when two
	// looks find the same files in it: somebody may be filling it.
	absence = 100 * time.Millisecond
)

// Source watches a folder.
type Source struct {
	dir string
	log *slog.Logger
	// resync is how often everything is looked at again, for changes that the
	// kernel does not tell of: network file systems, a file mapped into memory.
	resync time.Duration
	// patience is how long a file may be open for writing, with nothing written,
	// before it is read all the same.
	patience time.Duration
	// quiet is how long deletions wait for more of them: `rm -r` of the folder is
	// told from the deletion of files only at its end, and so is a file that is moved
	// away before it is written anew. Who pauses for longer has deleted what is gone.
	quiet time.Duration

	*store
	intern  objects.Intern
	watch   *watcher // nil while the folder is gone
	root    fs.FileInfo
	stamps  map[string]stamp
	pending map[string]time.Time // path → when it is due
	writing map[string]time.Time // path → when it was last written to, not closed since
	// deleting is when the first and the last of a run of deletions were seen.
	deleting struct{ first, last time.Time }
	folders  map[string]gateway.Problem // of folders that cannot be read
	looked   uint64                     // what the last look for the folder found
	changed  bool
	passed   bool // one whole pass is done
	// missing is the folder that was not there yet: no view tells of it.
	missing atomic.Pointer[gateway.Problem]
}

// New gives a source of the folder.
func New(dir string, log *slog.Logger) *Source {
	return &Source{
		dir: filepath.Clean(dir), log: log, resync: 10 * time.Second, patience: 10 * time.Second, quiet: 3 * time.Millisecond,
		store: newStore(), intern: objects.NewIntern(), stamps: map[string]stamp{},
		pending: map[string]time.Time{}, writing: map[string]time.Time{}, folders: map[string]gateway.Problem{},
	}
}

// Run delivers the whole view, first after one pass over all files and then
// whenever it changed, until the context ends. The folder need not exist yet; until
// it does, nothing is delivered.
func (s *Source) Run(ctx context.Context, deliver func(gateway.Snapshot)) error {
	defer s.leave()
	if err := s.enter(); err != nil {
		s.gone(err)
	}
	resync := time.NewTicker(s.resync)
	defer resync.Stop()
	due := time.NewTimer(0)
	defer due.Stop()
	for {
		if s.changed && s.passed {
			s.changed = false
			deliver(s.view())
		}
		due.Reset(s.next(time.Now()))
		var events chan []event
		if s.watch != nil {
			events = s.watch.events
		}
		select {
		case <-ctx.Done():
			return nil
		case batch, ok := <-events:
			if !ok {
				return fmt.Errorf("watch %s: reading events ended", s.dir)
			}
			s.note(batch, time.Now())
			continue // there may be more at once
		case <-resync.C:
			if s.watch != nil {
				s.rescan(time.Now())
			}
		case <-due.C:
		}
		if s.watch == nil {
			s.look()
		} else {
			s.process(time.Now())
		}
	}
}

// Problems is what keeps the first view from being given.
func (s *Source) Problems() []gateway.Problem {
	if p := s.missing.Load(); p != nil {
		return []gateway.Problem{*p}
	}
	return nil
}

// view is the snapshot with the folders' problems.
func (s *Source) view() gateway.Snapshot {
	snap := s.snapshot()
	for _, p := range s.folders {
		snap.Problems = append(snap.Problems, p)
	}
	snap.Problems = gateway.SortProblems(snap.Problems)
	return snap
}

// next is how long nothing is due.
func (s *Source) next(now time.Time) time.Duration {
	if s.watch == nil {
		return absence
	}
	wait := s.resync
	for _, at := range s.pending {
		wait = min(wait, at.Sub(now))
	}
	return max(wait, 0)
}

// enter begins to watch the folder and reads all of it.
func (s *Source) enter() error {
	info, err := os.Stat(s.dir)
	if err == nil && !info.IsDir() {
		err = fmt.Errorf("%s is not a folder", s.dir)
	}
	if err != nil {
		return err
	}
	w, err := newWatcher()
	if err != nil {
		return err
	}
	s.watch, s.root = w, info
	s.changed = s.changed || len(s.folders) > 0
	clear(s.folders)
	s.missing.Store(nil)
	s.rescan(time.Now())
	return nil
}

// leave stops watching.
func (s *Source) leave() {
	if s.watch != nil {
		s.watch.close()
	}
	s.watch = nil
	clear(s.pending)
	clear(s.writing)
}

// gone keeps everything while the folder is away.
func (s *Source) gone(err error) {
	s.leave()
	s.looked = 0
	if _, known := s.folders[s.dir]; known {
		return
	}
	if !s.passed {
		s.missing.Store(&gateway.Problem{
			Object: s.dir, File: s.dir, Reason: gateway.Unreadable,
			Message: fmt.Sprintf("the folder cannot be read (%v): make it, or correct --source", err),
		})
	}
	s.log.Error("the folder cannot be read, what was read from it stays in force", "dir", s.dir, "files", len(s.files), "error", err)
	s.folders[s.dir] = gateway.Problem{
		Object: s.dir, File: s.dir, Reason: gateway.Unreadable,
		Message: fmt.Sprintf("the folder cannot be read (%v): put it back; what was read from it before (%d files) stays in force", err, len(s.files)),
	}
	s.changed = true
}

// look for the folder, and take it once nobody is filling it.
func (s *Source) look() {
	files, err := list(s.dir)
	if err != nil || len(files) == 0 && len(s.files) > 0 {
		s.looked = 0
		return
	}
	var h maphash.Hash
	h.SetSeed(seed)
	for _, f := range files {
		if info, err := os.Stat(f); err == nil {
			fmt.Fprintln(&h, f, info.Size(), info.ModTime().UnixNano())
		}
	}
	found := h.Sum64()
	if s.looked != found {
		s.looked = found
		return
	}
	if err := s.enter(); err != nil {
		s.gone(err)
		return
	}
	s.log.Info("the folder is read again", "dir", s.dir, "files", len(s.files))
}

// present says whether the folder is still the one that is watched.
func (s *Source) present() bool {
	info, err := os.Stat(s.dir)
	switch {
	case err == nil && os.SameFile(info, s.root):
		return true
	case err == nil:
		err = fmt.Errorf("%s was replaced", s.dir)
	}
	s.gone(err)
	return false
}

// due sets when a path is looked at. An earlier time stays: a file that is written
// over and over is read all the same.
func (s *Source) due(path string, at time.Time) {
	if earlier, ok := s.pending[path]; !ok || at.Before(earlier) {
		s.pending[path] = at
	}
}

// note what events say about files, without looking at the files yet.
func (s *Source) note(batch []event, now time.Time) {
	for _, e := range batch {
		if e.mask&unix.IN_Q_OVERFLOW != 0 {
			s.due(s.dir, now)
			continue
		}
		path, ok := s.watch.path(e)
		if !ok {
			continue
		}
		switch {
		case e.name == "": // of the folder itself
			s.due(path, now.Add(settle))
		case strings.HasPrefix(e.name, ".."):
			// A mounted ConfigMap is changed by replacing "..data", which its files
			// are links into.
			s.due(filepath.Dir(path), now.Add(settle))
		case hidden(e.name):
		case e.mask&unix.IN_ISDIR != 0:
			s.due(path, now.Add(settle))
		case !isManifest(e.name):
		case e.mask&unix.IN_MODIFY != 0:
			s.writing[path] = now
		case e.mask&(unix.IN_CLOSE_WRITE|unix.IN_MOVED_TO) != 0:
			delete(s.writing, path)
			s.due(path, now.Add(settle))
		case e.mask&(unix.IN_DELETE|unix.IN_MOVED_FROM) != 0:
			delete(s.writing, path)
			s.due(path, now.Add(s.quiet))
			if s.deleting.first.IsZero() {
				s.deleting.first = now
			}
			s.deleting.last = now
		default: // created, or its attributes changed
			s.due(path, now.Add(linked))
		}
	}
}

// process what is due.
func (s *Source) process(now time.Time) {
	if !s.present() {
		return
	}
	hold := now.Sub(s.deleting.last) < s.quiet && now.Sub(s.deleting.first) < quietMost
	for path, at := range s.pending {
		if at.After(now) {
			continue
		}
		delete(s.pending, path)
		// A link that leads nowhere is not a deleted file.
		_, gone := os.Lstat(path)
		info, err := os.Stat(path)
		switch {
		case os.IsNotExist(gone) && hold:
			s.pending[path] = s.deleting.last.Add(s.quiet)
		case os.IsNotExist(gone):
			s.removed(path)
		case err == nil && info.IsDir():
			if err := s.scan(path, now, nil); err != nil && path == s.dir {
				s.gone(err)
				return
			}
		default:
			if _, open := s.writing[path]; !open {
				s.load(path, info, err, now, true)
			}
		}
	}
	if !hold {
		s.deleting.first = time.Time{}
	}
}

func (s *Source) removed(path string) {
	gone := s.under(path)
	if _, ok := s.files[path]; ok {
		gone = append(gone, path)
	}
	for _, file := range gone {
		s.remove(file)
		delete(s.stamps, file)
		s.changed = true
	}
	for dir := range s.folders {
		if dir == path || within(dir, path) {
			delete(s.folders, dir)
			s.changed = true
		}
	}
	s.watch.forget(path)
}

// rescan looks at everything.
func (s *Source) rescan(now time.Time) {
	if !s.present() {
		return
	}
	for path, since := range s.writing {
		if now.Sub(since) > s.patience {
			delete(s.writing, path)
		}
	}
	if err := s.scan(s.dir, now, nil); err != nil {
		s.gone(err)
		return
	}
	if !s.passed {
		s.passed, s.changed = true, true
	}
}

// scan looks at a folder and all below it; the error is that this folder cannot be
// read. Watching comes before looking: what happens in between is then seen twice
// and not missed.
func (s *Source) scan(dir string, now time.Time, seen map[string]bool) error {
	top := seen == nil
	if top {
		seen = map[string]bool{}
	}
	unwatched := s.watch.add(dir)
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		switch {
		case hidden(e.Name()):
		case e.IsDir():
			_ = s.scan(path, now, seen) // its Problem says so
		case isManifest(e.Name()) && !isDir(path, e):
			seen[path] = true
			if _, open := s.writing[path]; !open {
				info, err := os.Stat(path)
				s.load(path, info, err, now, false)
			}
		}
	}
	s.folder(dir, unwatched, err)
	if err != nil {
		for _, path := range s.under(dir) {
			seen[path] = true
		}
	}
	if top {
		for _, path := range s.under(dir) {
			if !seen[path] {
				s.due(path, now) // gone, unless it is back when that is due
			}
		}
	}
	return err
}

// folder notes that a folder can be read and watched, or why not.
func (s *Source) folder(dir string, unwatched, unread error) {
	before := s.folders[dir]
	p := gateway.Problem{Object: dir, File: dir, Reason: gateway.Unreadable}
	switch {
	case unread != nil:
		p.Message = fmt.Sprintf("%v: make the folder readable; what was read from it before stays in force", unread)
	case unwatched != nil:
		p.Message = fmt.Sprintf("%v: until then changes in it are seen only every %v", unwatched, s.resync)
	default:
		p = gateway.Problem{}
	}
	if p == before {
		return
	}
	s.changed = true
	if s.folders[dir] = p; p == (gateway.Problem{}) {
		delete(s.folders, dir)
	}
}
