package vxlan

import (
	"encoding/binary"
	"iter"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// typeMask leaves off the flag bits of an attribute's type (NLA_TYPE_MASK in
// include/uapi/linux/netlink.h).
const typeMask = 1<<14 - 1

// attributes are the type (without its flag bits) and payload of each attribute
// in b, up to the first that is malformed.
func attributes(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= unix.SizeofRtAttr {
			size := int(binary.NativeEndian.Uint16(b))
			if size < unix.SizeofRtAttr || size > len(b) {
				return
			}
			if !yield(binary.NativeEndian.Uint16(b[2:])&typeMask, b[unix.SizeofRtAttr:size]) {
				return
			}
			b = b[min((size+3)&^3, len(b)):]
		}
	}
}

// body is the payload of a message: its fixed header and its attributes.
func body(fixed nl.NetlinkRequestData, attrs ...*nl.RtAttr) []byte {
	b := fixed.Serialize()
	b = b[:len(b):len(b)] // it aliases the header
	for _, a := range attrs {
		b = append(b, a.Serialize()...)
	}
	return b
}

func attr(typ int, data []byte) *nl.RtAttr { return nl.NewRtAttr(typ, data) }

func nest(typ int, attrs ...*nl.RtAttr) *nl.RtAttr {
	a := nl.NewRtAttr(typ|unix.NLA_F_NESTED, nil)
	for _, child := range attrs {
		a.AddChild(child)
	}
	return a
}

func u32(v int) []byte { return nl.Uint32Attr(uint32(v)) }

func asU32(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(b)
}

func asAddr(b []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(b)
	return a
}
