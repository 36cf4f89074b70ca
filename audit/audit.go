// Package audit answers which pod had which port of a VIP at a time: it follows the
// connections of the routes that ask for it, makes a Record of each, and looks a
// question up among records. It is pure: the caller brings what the kernel tells, what
// the view says, and the time.
package audit

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/sallyport/sallyport/gateway"
)

// Key names a connection by its first packet, as the pod sent it. It has no pointers:
// the memory of a few hundred thousand of them is not searched for any.
type Key struct {
	Src, Dst         [16]byte
	SrcPort, DstPort uint16 // of an ICMP echo its id, and its type and code
	Protocol         uint8
}

// KeyOf a connection.
func KeyOf(src, dst netip.Addr, srcPort, dstPort uint16, protocol uint8) Key {
	return Key{Src: src.As16(), Dst: dst.As16(), SrcPort: srcPort, DstPort: dstPort, Protocol: protocol}
}

func (k Key) src() netip.Addr { return netip.AddrFrom16(k.Src).Unmap() }
func (k Key) dst() netip.Addr { return netip.AddrFrom16(k.Dst).Unmap() }

// What happened to a connection.
const (
	Began   Kind = iota + 1 // its first packet was translated, or another gateway told of it
	Closed                  // both sides of a TCP connection have said so, or one has broken it off
	Gone                    // the kernel has forgotten it
	Present                 // it is there
)

// Kind of a Sighting.
type Kind uint8

// Sighting is what the kernel tells of a connection.
type Sighting struct {
	Key
	Kind    Kind
	ID      uint32 // tells it from an earlier one with the same key
	VIP     netip.Addr
	Port    uint16 // that the partner sees
	Route   uint16
	Reset   bool // of a connection that has closed: broken off, not ended
	Over    bool // it has closed
	Replied bool // the partner has answered
	// Expired of what is Gone: no packet came for too long. Otherwise something removed it.
	Expired        bool
	Counted        bool // Sent and Received are known
	Sent, Received Traffic
}

// Traffic in one direction.
type Traffic struct{ Packets, Bytes uint64 }

// Pod is whose a connection is.
type Pod struct{ Namespace, Name, UID, Node string }

// Directory says whose an address is and what a route is called, as of one view.
type Directory struct {
	pods   []gateway.PlannedPod // sorted by address
	routes map[uint16]route
}

type route struct {
	name        string
	audit, gone bool
}

// NewDirectory of a plan. Routes that the one before had and this one has not are kept, as
// gone: their connections end later than they do.
func NewDirectory(plan gateway.Plan, before *Directory) *Directory {
	d := &Directory{pods: plan.Pods, routes: map[uint16]route{}}
	if before != nil {
		for id, r := range before.routes {
			r.gone = true
			d.routes[id] = r
		}
	}
	for _, r := range plan.Routes {
		_, known := d.routes[r.ID]
		if r.Audit || known {
			d.routes[r.ID] = route{name: r.Name, audit: r.Audit}
		}
	}
	return d
}

// Concerns tells whether the route's connections are, or were, to be recorded.
func (d *Directory) Concerns(route uint16) bool {
	if d == nil || len(d.routes) == 0 {
		return false
	}
	_, ok := d.routes[route]
	return ok
}

// pod that has the address.
func (d *Directory) pod(addr netip.Addr) (_ Pod, known bool) {
	i, found := slices.BinarySearchFunc(d.pods, addr, func(p gateway.PlannedPod, a netip.Addr) int { return p.Addr.Compare(a) })
	if !found {
		return Pod{}, false
	}
	p := &d.pods[i]
	return Pod{Namespace: p.Namespace, Name: p.Name, UID: p.UID, Node: p.Node}, true
}

// protocols are spelt as people do; others are their number.
var protocols = map[uint8]string{1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6", 132: "sctp"}

// Protocol number of a name.
func Protocol(name string) (uint8, bool) {
	for number, n := range protocols {
		if n == strings.ToLower(name) {
			return number, true
		}
	}
	return 0, false
}
