package conntrack

import (
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// InsertTranslatedReply creates an entry the obvious way, which does not translate.
func InsertTranslatedReply(e Entry) error {
	return execute(e.change(unix.NLM_F_CREATE|unix.NLM_F_EXCL,
		append(e.state(liberal), e.Reply.attr(ctaTupleReply))), "create", e)
}

// InsertStrict creates an entry as Insert does, whose windows are tracked.
func InsertStrict(e Entry) error {
	return execute(e.change(unix.NLM_F_CREATE|unix.NLM_F_EXCL,
		append(e.state(0), e.Original.Inverse().attr(ctaTupleReply), sourceNAT(e.Reply))), "create", e)
}

// UpdateTranslation updates the translation, which the kernel refuses.
func UpdateTranslation(e Entry) error {
	return execute(e.change(0, []*nl.RtAttr{sourceNAT(e.Reply)}), "update", e)
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
