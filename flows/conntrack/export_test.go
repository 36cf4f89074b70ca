package conntrack

import (
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// InsertTranslatedReply creates an entry the obvious way, which does not translate.
func InsertTranslatedReply(e Entry) error {
	return e.send("create", unix.NLM_F_CREATE|unix.NLM_F_EXCL,
		append(e.state(liberal), e.Reply.attr(ctaTupleReply)))
}

// InsertStrict creates an entry as Insert does, whose windows are tracked.
func InsertStrict(e Entry) error {
	return e.send("create", unix.NLM_F_CREATE|unix.NLM_F_EXCL,
		append(e.state(0), e.Original.Inverse().attr(ctaTupleReply), sourceNAT(e.Reply)))
}

// UpdateTranslation updates the translation, which the kernel refuses.
func UpdateTranslation(e Entry) error {
	return e.send("update", 0, []*nl.RtAttr{sourceNAT(e.Reply)})
}

// ShrinkBuffer leaves room for a few events only.
func (l *Listener) ShrinkBuffer() error { return l.sock.SetReceiveBufferSize(1, true) }
