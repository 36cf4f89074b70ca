package conntrack

import (
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

const (
	ctaNATMinIPv4 = 1
	ctaNATMaxIPv4 = 2
	ctaNATProto   = 3
	ctaNATMinIPv6 = 4
	ctaNATMaxIPv6 = 5

	ctaNATMinPort = 1
	ctaNATMaxPort = 2
)

// liberal are SACK_PERM and BE_LIBERAL (include/uapi/linux/netfilter/nf_conntrack_tcp.h),
// beLiberal is the latter alone.
// An entry of another host comes without the windows and their scale, and conntrack
// would call every packet invalid that lies beyond what it guesses of them.
const (
	liberal   = 0x02 | beLiberal
	beLiberal = 0x08
)

// Insert creates an entry that Dump or a Listener gave on another host, with its
// source translation. The connection then goes on here, whichever side speaks first.
// errors.Is(err, fs.ErrExist) tells that there is such an entry already.
func Insert(e Entry) error { return execute(e, (*Entry).insertion, "create") }

// Update changes timeout, status, TCP state and mark of the entry with e's original
// tuple and zone; what is zero in e stays as it is, but for a connection of TCP, which
// is not judged by its windows any more. The status can only grow, and the translation
// cannot change. errors.Is(err, fs.ErrNotExist) tells that there is no
// such entry.
func Update(e Entry) error { return execute(e, (*Entry).update, "update") }

// insertion asks for the entry to be created.
func (e *Entry) insertion(r *request, seq uint32) error {
	if e.Timeout < time.Second {
		return fmt.Errorf("its timeout is %s, give it one of a second or more", e.Timeout)
	}
	untranslated := e.Original.Inverse()
	if e.Reply.Src != untranslated.Src || e.Reply.SrcPort != untranslated.SrcPort {
		return fmt.Errorf("its destination is translated, to %s, and only sources can be",
			netip.AddrPortFrom(e.Reply.Src, e.Reply.SrcPort))
	}
	e.begin(r, newEntry, unix.NLM_F_CREATE|unix.NLM_F_EXCL, seq)
	e.putState(r, liberal)
	// The translated reply tuple would be accepted too, but IPS_SRC_NAT is only set by
	// a translation that changes the tuple (nf_nat_setup_info), and without it packets
	// leave as they came.
	untranslated.put(r, ctaTupleReply)
	if e.Reply != untranslated {
		e.putSourceNAT(r)
	}
	r.end()
	return nil
}

// update asks for the entry to be changed: as an insertion, it is IPCTNL_MSG_CT_NEW.
func (e *Entry) update(r *request, seq uint32) error {
	e.begin(r, newEntry, 0, seq)
	e.putState(r, liberal)
	r.end()
	return nil
}

// putState puts what may change in the life of an entry.
func (e *Entry) putState(r *request, tcpFlags byte) {
	if e.Timeout != 0 {
		r.put32(ctaTimeout, uint32(e.Timeout/time.Second))
	}
	if e.Status != 0 {
		// Without CONFIRMED the kernel says EBUSY. The bits of translation are its own.
		r.put32(ctaStatus, e.Status&(SeenReply|Assured)|confirmed)
	}
	if e.Mark != 0 {
		r.put32(ctaMark, e.Mark)
	}
	if e.Original.Protocol == unix.IPPROTO_TCP && (e.TCPState != 0 || tcpFlags != 0) {
		info := r.nest(ctaProtoInfo)
		tcp := r.nest(ctaProtoInfoTCP)
		if e.TCPState != 0 {
			r.put8(ctaTCPState, e.TCPState)
		}
		if tcpFlags != 0 {
			r.put8(ctaTCPFlagsOrig, tcpFlags, tcpFlags)
			r.put8(ctaTCPFlagsReply, tcpFlags, tcpFlags)
		}
		r.close(tcp)
		r.close(info)
	}
}

// putSourceNAT asks for exactly the source that the reply is sent to: a range of one
// address and one port, or one id of ICMP.
func (e *Entry) putSourceNAT(r *request) {
	port := e.Reply.DstPort
	if e.Reply.icmp() {
		port = e.Reply.ICMPID
	}
	nat := r.nest(ctaNATSrc)
	r.putAddr(e.Reply.Dst, ctaNATMinIPv4, ctaNATMinIPv6)
	r.putAddr(e.Reply.Dst, ctaNATMaxIPv4, ctaNATMaxIPv6)
	proto := r.nest(ctaNATProto)
	r.put16(ctaNATMinPort, port)
	r.put16(ctaNATMaxPort, port)
	r.close(proto)
	r.close(nat)
}
