// Package flows says how the holder of a VIP tells the other replicas which
// connections there are, so that each of them has them all in its kernel and any of
// them can go on with them. It is pure: it holds no socket and reads no clock.
//
// There is one stream for each VIP and each standby. It begins with a snapshot of
// the VIP's connections and goes on with batches of what changed since the snapshot
// was begun; a standby that falls too far behind gets another snapshot. A stream
// belongs to one term of the election, and no two members hold a VIP in one term.
package flows

import (
	"cmp"
	"fmt"
	"net/netip"
)

// Key names a connection by the first packet it had, as the pod sent it.
type Key struct {
	Src, Dst netip.Addr
	// SrcPort and DstPort of an ICMP echo are its id, and its type and code.
	SrcPort, DstPort uint16
	Protocol         uint8
}

func (k Key) String() string {
	return fmt.Sprintf("%s > %s protocol %d", netip.AddrPortFrom(k.Src, k.SrcPort), netip.AddrPortFrom(k.Dst, k.DstPort), k.Protocol)
}

// Compare orders keys.
func (k Key) Compare(other Key) int {
	return cmp.Or(k.Src.Compare(other.Src), k.Dst.Compare(other.Dst), cmp.Compare(k.Protocol, other.Protocol),
		cmp.Compare(k.SrcPort, other.SrcPort), cmp.Compare(k.DstPort, other.DstPort))
}

// Flow is a connection that was given the VIP as its source.
type Flow struct {
	Key
	// Port that the partner sees, or the id of an ICMP echo: where two pods use one
	// port towards one partner it is not the pod's own.
	Port   uint16
	State  uint8 // of a TCP connection, as conntrack numbers them
	Status uint8 // conntrack's bits for "answered" and "assured"
	Mark   uint32
}

// Op is what happened to a flow.
type Op uint8

// Ops.
const (
	Put    Op = iota + 1 // it is there, as given
	Delete               // it has ended; only its Key counts
	// Replace is a Put of a flow whose Key was another's just before: what is there
	// has another translation, and a translation cannot be changed.
	Replace
)

// Change of one flow.
type Change struct {
	Op   Op
	Flow Flow
}

// after is what remains to be told of two changes of one flow.
func (c Change) after(earlier Op) Change {
	if c.Op == Put && earlier != Put {
		c.Op = Replace
	}
	return c
}
