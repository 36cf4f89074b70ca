package manifest

import (
	"hash/maphash"
	"io/fs"
	"os"
	"syscall"
	"time"
)

// stamp tells whether a file has changed without reading it, and whether its text
// has without parsing it.
type stamp struct {
	size         int64
	inode        uint64
	modified     int64
	changed      int64 // ctime: it cannot be set back
	read         int64 // when; a change within the clock's grain would not show
	hash         uint64
	failedToRead bool
}

var seed = maphash.MakeSeed()

// load takes a file that has changed. Told means that an event said so.
func (s *Source) load(path string, info fs.FileInfo, err error, now time.Time, told bool) {
	before, known := s.stamps[path]
	var st stamp
	if err == nil {
		st = stampOf(info, now)
		// A second change within the grain of the file system's clock leaves the
		// stamp as it was.
		const grain = int64(20 * time.Millisecond)
		settled := before.read-max(before.modified, before.changed) > grain
		if known && !told && settled && !before.failedToRead && before.same(st) {
			return
		}
	}
	var text []byte
	if err == nil {
		text, err = os.ReadFile(path)
	}
	if err != nil {
		if os.IsNotExist(err) && !known {
			return
		}
		if known && before.failedToRead {
			return
		}
		s.stamps[path] = stamp{failedToRead: true}
		s.unreadable(path, err)
		s.changed = true
		return
	}
	st.hash = maphash.Bytes(seed, text)
	s.stamps[path] = st
	if known && !before.failedToRead && before.hash == st.hash {
		return
	}
	s.put(path, parse(path, text, s.intern))
	s.changed = true
}

func stampOf(info fs.FileInfo, now time.Time) stamp {
	st := stamp{size: info.Size(), modified: info.ModTime().UnixNano(), read: now.UnixNano()}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		st.inode, st.changed = sys.Ino, sys.Ctim.Nano()
	}
	return st
}

func (a stamp) same(b stamp) bool {
	return a.size == b.size && a.inode == b.inode && a.modified == b.modified && a.changed == b.changed
}
