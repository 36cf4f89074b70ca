package conntrack

import (
	"time"

	"golang.org/x/sys/unix"
)

// creating asks for an entry as insertion does, but with what is given.
func creating(put func(*Entry, *request)) asking {
	return func(e *Entry, r *request, seq uint32) error {
		e.begin(r, newEntry, unix.NLM_F_CREATE|unix.NLM_F_EXCL, seq)
		put(e, r)
		r.end()
		return nil
	}
}

// InsertTranslatedReply creates an entry the obvious way, which does not translate.
func InsertTranslatedReply(e Entry) error {
	return execute(e, creating(func(e *Entry, r *request) {
		e.putState(r, liberal)
		e.Reply.put(r, ctaTupleReply)
	}), "create")
}

// InsertStrict creates an entry as Insert does, whose windows are tracked.
func InsertStrict(e Entry) error {
	return execute(e, creating(func(e *Entry, r *request) {
		e.putState(r, 0)
		untranslated := e.Original.Inverse()
		untranslated.put(r, ctaTupleReply)
		e.putSourceNAT(r)
	}), "create")
}

// UpdateTranslation updates the translation, which the kernel refuses.
func UpdateTranslation(e Entry) error {
	return execute(e, func(e *Entry, r *request, seq uint32) error {
		e.begin(r, newEntry, 0, seq)
		e.putSourceNAT(r)
		r.end()
		return nil
	}, "update")
}

// ShrinkBuffer leaves room for a few events only.
func (l *Listener) ShrinkBuffer() error {
	return unix.SetsockoptInt(l.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1)
}

// Together is for how long events gather.
const Together = together * time.Millisecond

// Reading tells whether the table is being read by this process.
func Reading() bool {
	if reading.TryLock() {
		reading.Unlock()
		return false
	}
	return true
}

// Asking is how many wait for Flush, of whom Run does not know yet.
func (l *Listener) Asking() int { return len(l.flush) }

// Awake tells whether Run has been asked, and has not taken notice.
func (l *Listener) Awake() bool {
	n, _ := unix.Poll([]unix.PollFd{{Fd: int32(l.ask), Events: unix.POLLIN}}, 0)
	return n > 0
}

// UpdateAsAnother is Update from a socket as another process has it.
func UpdateAsAnother(e Entry) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	var r request
	if err := e.update(&r, 1); err != nil {
		return err
	}
	return unix.Sendto(fd, r.b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}
