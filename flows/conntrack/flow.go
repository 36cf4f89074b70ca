package conntrack

import (
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/flows"
)

// States of a TCP entry, beside TCPEstablished, that matter here
// (include/uapi/linux/netfilter/nf_conntrack_tcp.h).
const (
	tcpFinWait  uint8 = 4
	tcpLastAck  uint8 = 6
	tcpTimeWait uint8 = 7
	tcpClose    uint8 = 8
)

// Over tells of a TCP entry that both sides have ended the connection, or one has.
func (e *Entry) Over() bool { return e.TCPState == tcpTimeWait || e.TCPState == tcpClose }

// Broken tells of a TCP entry that a reset ended the connection.
func (e *Entry) Broken() bool { return e.TCPState == tcpClose }

// Scope is where the flows of one VIP are: entries of the zone whose mark has Mark's
// value and whose translation is to the VIP. No other entry is read or changed.
type Scope struct {
	VIP  netip.Addr
	Zone uint16
	Mark Mark
}

// Has tells whether the entry is one of the scope's.
func (s Scope) Has(e *Entry) bool {
	return e.Zone == s.Zone && e.Reply.Dst == s.VIP && e.Mark&s.Mark.Mask == s.Mark.Value
}

// Flow is the entry as other hosts are told of it; false when there is nothing to be
// told: only connections of TCP, UDP and ICMP echo that both sides have spoken in,
// and that neither has ended, would suffer from being forgotten.
func (s Scope) Flow(e *Entry) (flows.Flow, bool) {
	f, ours := s.read(e)
	ours = ours && e.Status&SeenReply != 0
	if e.Original.Protocol == unix.IPPROTO_TCP {
		return f, ours && e.TCPState >= TCPEstablished && e.TCPState <= tcpLastAck
	}
	return f, ours
}

// read gives every entry of the scope that could ever be a Flow.
func (s Scope) read(e *Entry) (flows.Flow, bool) {
	t := e.Original
	f := flows.Flow{
		Key:    flows.Key{Src: t.Src, Dst: t.Dst, SrcPort: t.SrcPort, DstPort: t.DstPort, Protocol: t.Protocol},
		Port:   e.Reply.DstPort,
		Status: uint8(e.Status & (SeenReply | Assured)), State: e.TCPState, Mark: e.Mark,
	}
	// The destination is never translated, and an entry where it is was not ours.
	if !s.Has(e) || e.Reply.Src != t.Dst || e.Reply.SrcPort != t.DstPort {
		return f, false
	}
	switch t.Protocol {
	case unix.IPPROTO_TCP, unix.IPPROTO_UDP:
		return f, true
	case unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6:
		f.SrcPort, f.DstPort, f.Port = t.ICMPID, uint16(t.ICMPType)<<8|uint16(t.ICMPCode), e.Reply.ICMPID
		_, echo := echoed[[2]uint8{t.Protocol, t.ICMPType}]
		return f, echo
	}
	return f, false
}

// Change is what an event means to other hosts; false for nothing.
//
// Of a TCP connection its opening, the first FIN and its close are told. What comes between
// the last two a standby that takes over learns from packets, and until then its
// timeout is as short. The end of an entry is told of what had not closed. What this process
// changes of an entry, its timeout for one, is its own host's.
func (s Scope) Change(ev *Event) (flows.Change, bool) {
	e := &ev.Entry
	switch {
	case ev.Kind == Updated && ev.Asked:
		return flows.Change{}, false
	case ev.Kind == Destroyed && !e.Over() || ev.Kind != Destroyed && e.Over():
		f, ours := s.read(e)
		return flows.Change{Op: flows.Delete, Flow: f}, ours && e.Status&SeenReply != 0 // nobody was told of others
	case ev.Kind == Destroyed || e.TCPState > tcpFinWait:
		return flows.Change{}, false
	case ev.Kind == Updated && e.Original.Protocol == unix.IPPROTO_TCP && e.TCPState == 0 && e.Status&SeenReply != 0:
		// Answered without a change of state is what was picked up in the middle: it was
		// established from its first packet on.
		e.TCPState = TCPEstablished
	}
	f, there := s.Flow(e)
	return flows.Change{Op: flows.Put, Flow: f}, there
}

// Entry is the flow as an entry of this host, whose bits of the mark are its own.
func (s Scope) Entry(f flows.Flow) Entry {
	e := Entry{
		Original: Tuple{Src: f.Src, Dst: f.Dst, Protocol: f.Protocol, SrcPort: f.SrcPort, DstPort: f.DstPort},
		Zone:     s.Zone, Mark: f.Mark&^s.Mark.Mask | s.Mark.Value, Status: uint32(f.Status), TCPState: f.State,
	}
	if e.Original.icmp() {
		e.Original.SrcPort, e.Original.DstPort = 0, 0
		e.Original.ICMPID, e.Original.ICMPType, e.Original.ICMPCode = f.SrcPort, uint8(f.DstPort>>8), uint8(f.DstPort)
	}
	e.Reply = e.Original.Inverse()
	e.Reply.Dst = s.VIP
	if e.Original.icmp() {
		e.Reply.ICMPID = f.Port
	} else {
		e.Reply.DstPort = f.Port
	}
	return e
}

// Flows are those of the scope that this host's kernel has.
func (s Scope) Flows() ([]flows.Flow, error) { return s.dump(s.Flow) }

// Table is every entry of the scope that could be a Flow: what a standby compares
// with its holder's, and ends what the holder does not have.
func (s Scope) Table() ([]flows.Flow, error) { return s.dump(s.read) }

func (s Scope) dump(pick func(*Entry) (flows.Flow, bool)) ([]flows.Flow, error) {
	var found []flows.Flow
	_, err := Dump(s.family(), s.Mark, func(e *Entry) bool {
		if f, ok := pick(e); ok {
			found = append(found, f)
		}
		return false
	})
	return found, err
}

// Restore makes the scope's entries ordinary ones of a host that their packets pass
// from now on, and says how many it had to change.
func (s Scope) Restore(w *Writer, t Timeouts) (int, error) {
	var changed []Entry
	_, err := Dump(s.family(), s.Mark, func(e *Entry) bool {
		if c, must := t.Restored(*e); must && s.Has(e) {
			changed = append(changed, c)
		}
		return false
	})
	if err != nil {
		return 0, err
	}
	return len(changed), w.Update(changed)
}

func (s Scope) family() Family {
	if s.VIP.Is6() {
		return IPv6
	}
	return IPv4
}

// Apply makes changes that another host tells of. The entries last for as long as
// given: their packets pass elsewhere.
func (s Scope) Apply(w *Writer, changes []flows.Change, last func(Entry) time.Duration) error {
	put, ended := w.put[:0], w.ended[:0]
	for _, c := range changes {
		e := s.Entry(c.Flow)
		if c.Op != flows.Put {
			ended = append(ended, e)
		}
		if c.Op != flows.Delete {
			e.Timeout = last(e)
			put = append(put, e)
		}
	}
	w.put, w.ended = put, ended
	if err := w.Delete(ended); err != nil {
		return err
	}
	return w.Put(put)
}

// Adopt makes changes of connections whose packets pass here from now on, and which may
// have ended: nothing that is there gives way to them.
func (s Scope) Adopt(w *Writer, changes []flows.Change, t Timeouts) error {
	var add, ended []Entry
	for _, c := range changes {
		e := s.Entry(c.Flow)
		if c.Op != flows.Put {
			ended = append(ended, e)
		}
		if c.Op != flows.Delete {
			e.Timeout = t.Normal(e)
			add = append(add, e)
		}
	}
	if err := w.Delete(ended); err != nil {
		return err
	}
	return w.Add(add)
}
