package journal

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/sallyport/sallyport/audit"
)

// Looked is what was read of one file.
type Looked struct {
	File    string    `json:"file"`
	Gateway string    `json:"gateway"` // that wrote it, by its first record
	From    time.Time `json:"from,omitzero"`
	To      time.Time `json:"to,omitzero"`
	Lines   int       `json:"lines"`
	// Damaged lines are no records.
	Damaged int `json:"damaged"`
}

// Look has the search read a journal: the file of that path and the full ones beside it.
// What cannot be read is in the error; the rest is read.
func Look(s *audit.Search, path string) ([]Looked, error) {
	// This one first: should it be put aside meanwhile, it is among the others, too.
	current, err := os.Open(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the audit log: %w", err)
	}
	names, listed := full(path)
	if current == nil && len(names) == 0 {
		return nil, errors.Join(fmt.Errorf("read the audit log: %w", err), listed)
	}
	var all []Looked
	errs := []error{listed}
	read := func(f *os.File, name string) {
		defer f.Close()
		looked, err := look(s, f)
		looked.File = name
		if err != nil {
			errs = append(errs, fmt.Errorf("read %s: %w", name, err))
		}
		all = append(all, looked)
	}
	for _, name := range names {
		f, err := os.Open(name)
		switch {
		case errors.Is(err, fs.ErrNotExist): // it was too old
		case err != nil:
			errs = append(errs, fmt.Errorf("read an audit log: %w", err))
		case current != nil && same(f, current):
			_ = f.Close()
		default:
			read(f, name)
		}
	}
	if current != nil {
		read(current, path)
	}
	return all, errors.Join(errs...)
}

func same(a, b *os.File) bool {
	x, err := a.Stat()
	y, err2 := b.Stat()
	return err == nil && err2 == nil && os.SameFile(x, y)
}

// longest line that is a record's; longer ones are damage.
const longest = 64 << 10

func look(s *audit.Search, f io.Reader) (Looked, error) {
	var l Looked
	r := bufio.NewReaderSize(f, longest)
	var last []byte
	for {
		line, err := r.ReadSlice('\n')
		if errors.Is(err, io.EOF) && len(line) > 0 { // it is being written, or a host's end cut it short
			l.Damaged++
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			l.Damaged++
			for errors.Is(err, bufio.ErrBufferFull) {
				_, err = r.ReadSlice('\n')
			}
			if err == nil {
				continue
			}
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				break
			}
			return l, err
		}
		if len(line) == 1 {
			continue
		}
		l.Lines++
		last = append(last[:0], line...)
		if !l.From.IsZero() && !s.Concerns(line) {
			continue
		}
		record, err := audit.Parse(line)
		if err != nil {
			l.Damaged++
			continue
		}
		if l.From.IsZero() {
			l.From, l.To, l.Gateway = record.Time, record.Time, record.Gateway
		}
		s.Add(record)
	}
	if record, err := audit.Parse(last); err == nil {
		l.To = record.Time
	}
	return l, nil
}
