package conntrack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Writer makes many changes of the table at a time, a hundred for one system call.
// It is for one goroutine at a time.
type Writer struct {
	sock *socket
	seq  uint32
	once sync.Once

	request    request // what each call uses again
	put, ended []Entry
}

// atOnce is how many changes are asked for before the answers are read: fewer than
// whose refusals fill the socket's buffer.
const atOnce = 128

// NewWriter opens a writer, which is to be closed.
func NewWriter() (*Writer, error) {
	sock, err := openSocket(1 << 20)
	if err != nil {
		return nil, err
	}
	return &Writer{sock: sock}, nil
}

// Close ends it.
func (w *Writer) Close() { w.once.Do(w.sock.close) }

// Put makes entries be there as given: it creates them as Insert does, and updates
// those that are there. An entry that has the translated tuple of a given one gives
// way to it: of two connections that were mapped to one tuple, one has ended.
// Entries that the kernel refuses are in the error; the others are put.
func (w *Writer) Put(entries []Entry) error {
	refused, err := w.each(entries, (*Entry).insertion)
	exist, errs := sift(entries, refused, unix.EEXIST, "create")
	if len(exist) == 0 || err != nil {
		return errors.Join(append(errs, err)...)
	}
	refused, err = w.each(exist, (*Entry).update)
	clashing, more := sift(exist, refused, unix.ENOENT, "update")
	errs = append(errs, more...)
	if len(clashing) == 0 || err != nil {
		return errors.Join(append(errs, err)...)
	}
	if _, err = w.each(clashing, (*Entry).rival); err != nil {
		return errors.Join(append(errs, err)...)
	}
	refused, err = w.each(clashing, (*Entry).insertion)
	_, more = sift(clashing, refused, 0, "create")
	return errors.Join(append(append(errs, more...), err)...)
}

// Add makes entries be there, unless their tuple is taken on either side.
func (w *Writer) Add(entries []Entry) error {
	refused, err := w.each(entries, (*Entry).insertion)
	_, errs := sift(entries, refused, unix.EEXIST, "create")
	return errors.Join(append(errs, err)...)
}

// Update changes entries as the function Update does; one that is gone is no error.
func (w *Writer) Update(entries []Entry) error {
	refused, err := w.each(entries, (*Entry).update)
	_, errs := sift(entries, refused, unix.ENOENT, "update")
	return errors.Join(append(errs, err)...)
}

// Delete removes entries; one that is gone already is no error.
func (w *Writer) Delete(entries []Entry) error {
	refused, err := w.each(entries, (*Entry).deletion)
	_, errs := sift(entries, refused, unix.ENOENT, "delete")
	return errors.Join(append(errs, err)...)
}

// ErrClosed tells that a Writer cannot be used any more.
var ErrClosed = errors.New("the netlink socket is closed")

func broken(err error) error {
	if errors.Is(err, os.ErrClosed) {
		err = ErrClosed
	}
	return fmt.Errorf("change tracked connections: %w", err)
}

// sift picks the entries that were refused for the expected reason; all others are
// errors.
func sift(entries []Entry, refused map[int]error, expected unix.Errno, doing string) (as []Entry, errs []error) {
	if len(refused) == 0 {
		return nil, nil
	}
	for i, e := range entries {
		switch err := refused[i]; {
		case err == nil:
		case expected != 0 && errors.Is(err, expected):
			as = append(as, e)
		default:
			errs = append(errs, e.wrap(doing, err))
		}
	}
	return as, errs
}

// asking is how a message about an entry is built; an error leaves it out.
type asking func(e *Entry, r *request, seq uint32) error

// each asks for something of each entry and gives what was refused, by index.
func (w *Writer) each(entries []Entry, ask asking) (refused map[int]error, err error) {
	refuse := func(i int, err error) {
		if refused == nil {
			refused = map[int]error{}
		}
		refused[i] = err
	}
	for begin := 0; begin < len(entries); begin += atOnce {
		end := min(begin+atOnce, len(entries))
		first, until := w.seq+1, uint32(0)
		w.request.b = w.request.b[:0]
		for i := begin; i < end; i++ {
			w.seq++
			if err := ask(&entries[i], &w.request, w.seq); err != nil {
				refuse(i, err)
				continue
			}
			until = w.seq
		}
		if len(w.request.b) == 0 {
			continue
		}
		// Refusals come anyway, the answer to the last one tells that it is all.
		w.request.acknowledged()
		if err := w.sock.send(w.request.b); err != nil {
			return refused, broken(err)
		}
		if err := w.answers(first, until, func(seq uint32, err error) { refuse(begin+int(seq-first), err) }); err != nil {
			return refused, broken(err)
		}
	}
	return refused, nil
}

// execute asks for something of one entry, and gives the answer.
func execute(e Entry, ask asking, doing string) error {
	w, err := NewWriter()
	if err != nil {
		return err
	}
	defer w.Close()
	refused, err := w.each([]Entry{e}, ask)
	if err == nil && refused[0] != nil {
		err = e.wrap(doing, refused[0])
	}
	return err
}

func (e *Entry) wrap(doing string, err error) error {
	return fmt.Errorf("%s tracked connection %s in zone %d: %w", doing, e.Original, e.Zone, err)
}

// answers reads refusals up to the answer to the message until.
func (w *Writer) answers(first, until uint32, refuse func(seq uint32, err error)) error {
	for done := false; !done; {
		b, err := w.sock.receive()
		if err != nil {
			return err
		}
		err = messages(b, func(h header, body []byte) error {
			if h.kind != unix.NLMSG_ERROR || h.seq-first > until-first {
				return nil // the rest of an earlier call that failed half way
			}
			if len(body) < 4 {
				return errShort
			}
			if code := int32(binary.NativeEndian.Uint32(body)); code != 0 {
				refuse(h.seq, unix.Errno(-code))
			}
			done = done || h.seq == until
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
