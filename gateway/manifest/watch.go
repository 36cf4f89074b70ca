package manifest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// watcher tells what happens to the files of some folders. It speaks inotify(7)
// itself because one event is needed that portable libraries keep to themselves:
// that a writer has closed the file. A pause in the writing tells nothing, and half
// a file may well be YAML.
type watcher struct {
	fd     *os.File
	dirs   map[int32]string // watch descriptor → folder
	wds    map[string]int32
	events chan []event
	done   chan struct{}
	once   sync.Once
}

type event struct {
	wd   int32
	mask uint32
	name string // in the folder; "" for the folder itself
}

const watched = unix.IN_CREATE | unix.IN_MODIFY | unix.IN_CLOSE_WRITE | unix.IN_ATTRIB |
	unix.IN_MOVED_TO | unix.IN_MOVED_FROM | unix.IN_DELETE | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ONLYDIR

func newWatcher() (*watcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("start watching files: %w: raise fs.inotify.max_user_instances", err)
	}
	w := &watcher{
		fd: os.NewFile(uintptr(fd), "inotify"), dirs: map[int32]string{}, wds: map[string]int32{},
		events: make(chan []event), done: make(chan struct{}),
	}
	go w.read()
	return w, nil
}

// close returns when nothing reads any more.
func (w *watcher) close() {
	w.once.Do(func() {
		close(w.done)
		_ = w.fd.Close() // ends the read
		for range w.events {
		}
	})
}

// add watches a folder; watching it again is no harm.
func (w *watcher) add(dir string) error {
	raw, err := w.fd.SyscallConn()
	if err != nil {
		return fmt.Errorf("watch %s: %w", dir, err)
	}
	var wd int
	if ctlErr := raw.Control(func(fd uintptr) { wd, err = unix.InotifyAddWatch(int(fd), dir, watched) }); ctlErr != nil {
		err = ctlErr
	}
	if errors.Is(err, unix.ENOSPC) {
		return fmt.Errorf("watch %s: %w: raise fs.inotify.max_user_watches", dir, err)
	}
	if err != nil {
		return fmt.Errorf("watch %s: %w", dir, err)
	}
	w.dirs[int32(wd)], w.wds[dir] = dir, int32(wd)
	return nil
}

// forget a folder that is gone; the kernel has dropped, or will drop, the watch of
// one that is deleted, but not of one that was moved away.
func (w *watcher) forget(dir string) {
	for path, wd := range w.wds {
		if path != dir && !within(path, dir) {
			continue
		}
		delete(w.wds, path)
		if w.dirs[wd] != path {
			continue // moved, and watched by its new name already
		}
		delete(w.dirs, wd)
		if raw, err := w.fd.SyscallConn(); err == nil {
			_ = raw.Control(func(fd uintptr) { _, _ = unix.InotifyRmWatch(int(fd), uint32(wd)) })
		}
	}
}

// path of an event's file; false when its folder is watched no more.
func (w *watcher) path(e event) (string, bool) {
	dir, ok := w.dirs[e.wd]
	if e.mask&unix.IN_IGNORED != 0 {
		delete(w.dirs, e.wd)
	}
	return filepath.Join(dir, e.name), ok
}

func (w *watcher) read() {
	defer close(w.events)
	buf := make([]byte, 64<<10)
	for {
		n, err := w.fd.Read(buf)
		if err != nil {
			return
		}
		select {
		case w.events <- decodeEvents(buf[:n]):
		case <-w.done:
			return
		}
	}
}

// decodeEvents reads struct inotify_event of include/uapi/linux/inotify.h.
func decodeEvents(buf []byte) []event {
	var all []event
	for len(buf) >= unix.SizeofInotifyEvent {
		raw := (*unix.InotifyEvent)(unsafe.Pointer(&buf[0]))
		end := unix.SizeofInotifyEvent + int(raw.Len)
		if end > len(buf) {
			break
		}
		name := buf[unix.SizeofInotifyEvent:end]
		for len(name) > 0 && name[len(name)-1] == 0 {
			name = name[:len(name)-1]
		}
		all = append(all, event{raw.Wd, raw.Mask, string(name)})
		buf = buf[end:]
	}
	return all
}

func within(path, dir string) bool {
	return dir == "." || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}
