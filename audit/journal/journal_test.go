package journal

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/audit"
)

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func record(port int, at time.Time) *audit.Record {
	return &audit.Record{Time: at, Event: audit.EndEvent, Gateway: "a", Start: at.Add(-time.Second), VIP: netip.MustParseAddr("192.0.2.10"),
		Source: netip.MustParseAddr("10.244.1.5"), Destination: netip.MustParseAddr("203.0.113.9"), Port: uint16(port), Protocol: "tcp", Reason: audit.Finished}
}

func testJournal(t *testing.T) (*Journal, string) {
	path := filepath.Join(t.TempDir(), "audit", "c.jsonl")
	j := New(Config{Path: path, Keep: LeastKeep, Gateway: "a"})
	t.Cleanup(j.Close)
	return j, path
}

// touched gives the file, whose own clock is not the test's, the time of its last line.
func touched(t *testing.T, path string, at time.Time) {
	t.Helper()
	if err := os.Chtimes(path, at, at); err != nil {
		t.Fatal(err)
	}
}

// asked is who is found of a port, and what was looked at.
func asked(t *testing.T, path string, port int, at time.Time) (audit.Answer, []Looked) {
	t.Helper()
	s := audit.NewSearch(audit.Question{At: at, Port: uint16(port)})
	looked, err := Look(s, path)
	if err != nil {
		t.Fatal(err)
	}
	return s.Answer(), looked
}

func TestRecordsAreFoundOverRotatedFiles(t *testing.T) {
	j, path := testJournal(t)
	now := noon
	for port := range 1000 {
		now = now.Add(time.Second)
		j.Add(record(port, now), now)
		if port%50 == 0 {
			j.Flush(now)
		}
	}
	j.End(now)
	files, err := full(path)
	if err != nil || len(files) < 2 {
		t.Fatalf("full files %v, %v; want some", files, err)
	}
	for _, port := range []int{1, 400, 999} {
		if a, looked := asked(t, path, port, noon.Add(time.Duration(port+1)*time.Second)); len(a.Found) != 1 || len(looked) != len(files)+1 {
			t.Errorf("port %d: found %v in %v", port, a.Found, looked)
		}
	}
	for _, name := range append(files, path) {
		if info, err := os.Stat(name); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: %v, %v; want it for its owner alone", name, info.Mode(), err)
		}
	}
	// A start after that goes on, on the same day in the same file.
	touched(t, path, now)
	j = New(j.cfg)
	j.Add(record(1000, now), now)
	j.End(now)
	if a, looked := asked(t, path, 1000, now); len(a.Found) != 1 || len(looked) != len(files)+1 {
		t.Errorf("after a start: found %v in %v", a.Found, looked)
	}
}

func TestNoMoreIsKeptThanAsked(t *testing.T) {
	j, path := testJournal(t)
	now := noon
	most := int64(0)
	for port := range 10000 {
		now = now.Add(time.Second)
		j.Add(record(port, now), now)
		if port%100 == 0 {
			j.Flush(now)
			entries, err := os.ReadDir(filepath.Dir(path))
			if err != nil {
				t.Fatal(err)
			}
			sum := int64(0)
			for _, e := range entries {
				if info, err := e.Info(); err == nil {
					sum += info.Size()
				}
			}
			most = max(most, sum)
		}
	}
	if most > LeastKeep || most < LeastKeep/2 {
		t.Errorf("%d bytes were kept, want at most %d and not much less", most, LeastKeep)
	}
}

func TestOldFilesGoByAge(t *testing.T) {
	j, path := testJournal(t)
	j.cfg.For = 36 * time.Hour
	for day := range 4 {
		now := noon.AddDate(0, 0, day)
		j.Add(record(day+1, now), now)
		j.Flush(now)
		touched(t, path, now)
	}
	files, err := full(path)
	if err != nil || len(files) != 1 {
		t.Errorf("full files %v, %v; want yesterday's alone", files, err)
	}
}

// A folder in memory that is full costs records, which are counted, and then goes on.
func TestAFullDiskIsCounted(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount a small disk")
	}
	dir := t.TempDir()
	if err := unix.Mount("small", dir, "tmpfs", 0, "size=16k"); err != nil {
		t.Skip("a small disk cannot be mounted here:", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	path := filepath.Join(dir, "c.jsonl")
	j := New(Config{Path: path, Keep: LeastKeep, Gateway: "a"})
	t.Cleanup(j.Close)
	const all = 100
	for port := range all {
		j.Add(record(port, noon), noon)
	}
	j.Flush(noon)
	s := j.State()
	if s.Error == "" || s.Lines == 0 || s.Lost == 0 || s.Lines+s.Lost != all {
		t.Fatalf("a full disk: %+v, want %d lines written or lost", s, all)
	}
	text, err := os.ReadFile(path)
	if err != nil || !bytes.HasSuffix(text, []byte("}\n")) || uint64(bytes.Count(text, []byte("\n"))) != s.Lines {
		t.Fatalf("the file ends in half a line, or has not %d: %v", s.Lines, err)
	}
	for { // until there is not even room to say so
		before := s
		j.Add(record(1, noon), noon)
		j.Flush(noon)
		if s = j.State(); s.Lines == before.Lines {
			if s.Lost != before.Lost+1 {
				t.Errorf("%d are lost, before one more %d were", s.Lost, before.Lost)
			}
			break
		}
	}
	lost := s.Lost
	if err := unix.Mount("small", dir, "tmpfs", unix.MS_REMOUNT, "size=1m"); err != nil {
		t.Fatal(err)
	}
	j.Flush(noon)
	if s := j.State(); s.Error != "" || s.Lost != lost {
		t.Errorf("with room: %+v, before %d were lost", s, lost)
	}
	a, _ := asked(t, path, 1, noon)
	said := uint64(0)
	for _, r := range a.Lost {
		said += *r.Lost
	}
	if said != lost {
		t.Errorf("%d are on record as lost: %+v, want %d", said, a.Lost, lost)
	}
}

func TestWhatIsTakenAwayIsMadeAnew(t *testing.T) {
	j, path := testJournal(t)
	j.Add(record(1, noon), noon)
	j.Flush(noon)
	if err := os.RemoveAll(filepath.Dir(path)); err != nil {
		t.Fatal(err)
	}
	j.Add(record(2, noon), noon)
	j.Flush(noon)
	if a, _ := asked(t, path, 2, noon); len(a.Found) != 1 || j.State().Error != "" {
		t.Errorf("found %v, state %+v", a.Found, j.State())
	}
}

// What a host's sudden end left of a line costs that line alone.
func TestDamageIsSaidAndPassedOver(t *testing.T) {
	j, path := testJournal(t)
	j.cfg.Keep = 1 << 24 // all of it in one file
	j.Add(record(1, noon), noon)
	j.Flush(noon)
	j.Close()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err == nil {
		_, err = fmt.Fprintf(f, "%s\n%s", strings.Repeat("x", 3*longest), `{"time":"2026-11-21T12:00:00.000Z","event":"end","port":3,`)
		f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	touched(t, path, noon)
	j.Add(record(2, noon), noon)
	j.End(noon)
	for _, port := range []int{1, 2} {
		if a, _ := asked(t, path, port, noon); len(a.Found) != 1 {
			t.Errorf("port %d: %v", port, a.Found)
		}
	}
	if _, looked := asked(t, path, 3, noon); looked[0].Damaged != 2 {
		t.Errorf("looked at %+v, want 2 damaged lines", looked)
	}
	if err := os.Truncate(path, size(t, path)-1); err != nil { // the last line is being written
		t.Fatal(err)
	}
	if _, looked := asked(t, path, 3, noon); looked[0].Damaged != 3 {
		t.Errorf("looked at %+v, want 3 damaged lines", looked)
	}
}

func TestALogThatIsNoneIsAnError(t *testing.T) {
	s := audit.NewSearch(audit.Question{At: noon, Port: 1})
	if _, err := Look(s, filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a log that is not there is no error")
	}
	dir := t.TempDir()
	j := New(Config{Path: dir, Keep: LeastKeep})
	j.Add(record(1, noon), noon)
	j.Flush(noon)
	if s := j.State(); s.Lost != 1 || s.Error == "" {
		t.Errorf("a folder as log: %+v", s)
	}
}

// What somebody made where the log belongs is made root's alone, or is no log.
func TestALogIsAnOrdinaryFileOfItsOwner(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.jsonl")
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	j := New(Config{Path: path, Keep: LeastKeep})
	j.Add(record(1, noon), noon)
	j.End(noon)
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("a log that everybody could read is %v, %v", info.Mode(), err)
	}
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	j = New(Config{Path: pipe, Keep: LeastKeep})
	j.Add(record(1, noon), noon)
	j.End(noon)
	if s := j.State(); s.Lost != 1 || s.Error == "" {
		t.Errorf("a pipe as log: %+v", s)
	}
}

// A file that is put aside while it is read is read once.
func TestAFileIsReadOnce(t *testing.T) {
	j, path := testJournal(t)
	j.Add(record(1, noon), noon)
	j.End(noon)
	if err := os.Link(path, path+"."+noon.Format(stamp)); err != nil {
		t.Fatal(err)
	}
	if a, looked := asked(t, path, 1, noon); len(a.Found) != 1 || len(looked) != 1 {
		t.Errorf("found %v in %v", a.Found, looked)
	}
}

func size(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}
