// Package conntrack reads the kernel's connection-tracking table, hears of its
// changes, and creates, updates and removes entries, over nfnetlink
// (include/uapi/linux/netfilter/nfnetlink_conntrack.h).
package conntrack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Status bits of an entry (include/uapi/linux/netfilter/nf_conntrack_common.h).
const (
	SeenReply uint32 = 1 << 1
	Assured   uint32 = 1 << 2

	confirmed uint32 = 1 << 3
)

// TCPEstablished is the state of an entry whose connection both sides have opened
// (include/uapi/linux/netfilter/nf_conntrack_tcp.h).
const TCPEstablished uint8 = 3

// Entry is one tracked connection.
type Entry struct {
	Original, Reply Tuple
	Status          uint32
	Mark            uint32
	Zone            uint16
	Timeout         time.Duration // what is left of it, in whole seconds
	TCPState        uint8

	// Sent and Received are counted since this host has the entry; zero unless Counted,
	// which takes net.netfilter.nf_conntrack_acct. Only a Dump and a destroyed entry's
	// event have them.
	Sent, Received Counters
	Counted        bool

	id      uint32 // CTA_ID: guards against deleting a successor of the same tuple
	liberal bool   // as a Dump told: its windows are not judged
}

// Counters of one direction.
type Counters struct{ Packets, Bytes uint64 }

// ID tells an entry from another of the same tuple, before it or after.
func (e *Entry) ID() uint32 { return e.id }

const (
	newEntry    = unix.NFNL_SUBSYS_CTNETLINK << 8   // IPCTNL_MSG_CT_NEW
	getEntries  = unix.NFNL_SUBSYS_CTNETLINK<<8 | 1 // IPCTNL_MSG_CT_GET
	deleteEntry = unix.NFNL_SUBSYS_CTNETLINK<<8 | 2 // IPCTNL_MSG_CT_DELETE

	ctaTupleOrig  = 1
	ctaTupleReply = 2
	ctaStatus     = 3
	ctaProtoInfo  = 4
	ctaNATSrc     = 6
	ctaTimeout    = 7
	ctaMark       = 8
	ctaCountOrig  = 9
	ctaCountReply = 10
	ctaID         = 12
	ctaZone       = 18
	ctaMarkMask   = 21
)

// Family of the table's entries.
type Family uint8

// The families.
const (
	IPv4 Family = unix.AF_INET
	IPv6 Family = unix.AF_INET6
)

// Mark limits a dump to entries whose mark has Value under Mask; the zero Mark
// limits nothing.
type Mark struct{ Value, Mask uint32 }

// Dump reads the entries for which keep is true. The kernel sees to the mark, keep
// to everything else.
func Dump(family Family, mark Mark, keep func(*Entry) bool) ([]Entry, error) {
	var r request
	r.begin(getEntries, unix.NLM_F_DUMP, 1, family)
	if mark.Mask != 0 {
		r.put32(ctaMark, mark.Value)
		r.put32(ctaMarkMask, mark.Mask)
	}
	r.end()
	var entries []Entry
	if err := dump(r.b, func(m []byte) error {
		e, err := parse(m)
		if err == nil && keep(&e) {
			entries = append(entries, e)
		}
		return err
	}); err != nil {
		return nil, fmt.Errorf("read the connection-tracking table: %w", err)
	}
	return entries, nil
}

// reading is held by who reads the table. The kernel walks all buckets of the host's, of
// every namespace, with the processor's softirqs held up (ctnetlink_dump_table): 9 ms for the
// 262,144 of a host with more than 4 GB, and no packet passes there. Two at a time
// would hold up two processors, or one for twice as long.
var reading sync.Mutex

// dump asks and reads the answers, all into one buffer: a table of some hundred
// thousand entries leaves no garbage.
func dump(request []byte, each func(body []byte) error) error {
	reading.Lock()
	defer reading.Unlock()
	sock, err := openSocket(1 << 20)
	if err != nil {
		return err
	}
	defer sock.close()
	if err := sock.send(request); err != nil {
		return err
	}
	for done := false; !done; {
		b, err := sock.receive()
		if err != nil {
			return err
		}
		err = messages(b, func(h header, body []byte) error {
			switch h.kind {
			case newEntry:
				return each(body)
			case unix.NLMSG_DONE, unix.NLMSG_ERROR:
				done = true
				if len(body) < 4 {
					return errShort
				}
				if code := int32(binary.NativeEndian.Uint32(body)); code != 0 {
					return unix.Errno(-code)
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Delete removes an entry. One that is gone already is no error. An entry that Dump or
// a Listener gave on this host is told from a successor with the same tuple.
func Delete(e Entry) error {
	if err := execute(e, (*Entry).deletion, "delete"); !errors.Is(err, unix.ENOENT) {
		return err
	}
	return nil
}

func (e *Entry) deletion(r *request, seq uint32) error {
	e.begin(r, deleteEntry, 0, seq)
	if e.id != 0 {
		r.put32(ctaID, e.id)
	}
	r.end()
	return nil
}

// rival asks for whatever has the entry's translated tuple to be deleted.
func (e *Entry) rival(r *request, seq uint32) error {
	r.begin(deleteEntry, 0, seq, e.Original.family())
	e.Reply.put(r, ctaTupleReply)
	e.putZone(r)
	r.end()
	return nil
}

// begin a message about the entry, which it names by tuple and zone.
func (e *Entry) begin(r *request, message, flags uint16, seq uint32) {
	r.begin(message, flags, seq, e.Original.family())
	e.Original.put(r, ctaTupleOrig)
	e.putZone(r)
}

func (e *Entry) putZone(r *request) {
	if e.Zone != 0 {
		r.put16(ctaZone, e.Zone)
	}
}

// Forget deletes the entries for which match is true and says how many those were.
func Forget(family Family, mark Mark, match func(*Entry) bool) (int, error) {
	entries, err := Dump(family, mark, match)
	if err != nil || len(entries) == 0 {
		return 0, err
	}
	w, err := NewWriter()
	if err != nil {
		return 0, err
	}
	defer w.Close()
	return len(entries), w.Delete(entries)
}
