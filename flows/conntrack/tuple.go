package conntrack

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Tuple is one direction of a connection. Only ICMP has the last three fields, and
// it has no ports.
type Tuple struct {
	Src, Dst           netip.Addr
	Protocol           uint8
	SrcPort, DstPort   uint16
	ICMPID             uint16
	ICMPType, ICMPCode uint8
}

// echoed are the types of ICMP that come in pairs, as the kernel inverts them
// (nf_conntrack_proto_icmp.c, nf_conntrack_proto_icmpv6.c), for echo.
var echoed = map[[2]uint8]uint8{
	{unix.IPPROTO_ICMP, 8}:     0,
	{unix.IPPROTO_ICMP, 0}:     8,
	{unix.IPPROTO_ICMPV6, 128}: 129,
	{unix.IPPROTO_ICMPV6, 129}: 128,
}

// Inverse is the tuple of the answer to an untranslated packet.
func (t Tuple) Inverse() Tuple {
	t.Src, t.Dst = t.Dst, t.Src
	t.SrcPort, t.DstPort = t.DstPort, t.SrcPort
	if kind, ok := echoed[[2]uint8{t.Protocol, t.ICMPType}]; ok {
		t.ICMPType = kind
	}
	return t
}

func (t Tuple) String() string {
	if t.icmp() {
		return fmt.Sprintf("%s > %s icmp id %d", t.Src, t.Dst, t.ICMPID)
	}
	return fmt.Sprintf("%s > %s protocol %d",
		netip.AddrPortFrom(t.Src, t.SrcPort), netip.AddrPortFrom(t.Dst, t.DstPort), t.Protocol)
}

func (t Tuple) icmp() bool {
	return t.Protocol == unix.IPPROTO_ICMP || t.Protocol == unix.IPPROTO_ICMPV6
}

func (t Tuple) family() Family {
	if t.Src.Is6() {
		return IPv6
	}
	return IPv4
}

// put the tuple as CTA_TUPLE_ORIG or CTA_TUPLE_REPLY.
func (t *Tuple) put(r *request, kind uint16) {
	tuple := r.nest(kind)
	ip := r.nest(ctaTupleIP)
	r.putAddr(t.Src, ctaIPv4Src, ctaIPv6Src)
	r.putAddr(t.Dst, ctaIPv4Dst, ctaIPv6Dst)
	r.close(ip)
	proto := r.nest(ctaTupleProto)
	r.put8(ctaProtoNum, t.Protocol)
	switch t.Protocol {
	case unix.IPPROTO_ICMP:
		r.put16(ctaProtoICMPID, t.ICMPID)
		r.put8(ctaProtoICMPType, t.ICMPType)
		r.put8(ctaProtoICMPCode, t.ICMPCode)
	case unix.IPPROTO_ICMPV6:
		r.put16(ctaProtoICMPv6ID, t.ICMPID)
		r.put8(ctaProtoICMPv6Type, t.ICMPType)
		r.put8(ctaProtoICMPv6Code, t.ICMPCode)
	default:
		r.put16(ctaProtoSrcPort, t.SrcPort)
		r.put16(ctaProtoDstPort, t.DstPort)
	}
	r.close(proto)
	r.close(tuple)
}

func (r *request) putAddr(a netip.Addr, as4, as6 uint16) {
	if a.Is4() {
		b := a.As4()
		r.put8(as4, b[:]...)
		return
	}
	b := a.As16()
	r.put8(as6, b[:]...)
}
