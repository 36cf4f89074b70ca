package conntrack

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
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

// attr is the tuple as CTA_TUPLE_ORIG or CTA_TUPLE_REPLY.
func (t Tuple) attr(kind int) *nl.RtAttr {
	src, dst := ctaIPv4Src, ctaIPv4Dst
	if t.family() == IPv6 {
		src, dst = ctaIPv6Src, ctaIPv6Dst
	}
	tuple := nested(kind)
	ip := tuple.AddRtAttr(ctaTupleIP|unix.NLA_F_NESTED, nil)
	ip.AddRtAttr(src, t.Src.AsSlice())
	ip.AddRtAttr(dst, t.Dst.AsSlice())
	proto := tuple.AddRtAttr(ctaTupleProto|unix.NLA_F_NESTED, nil)
	proto.AddRtAttr(ctaProtoNum, []byte{t.Protocol})
	switch t.Protocol {
	case unix.IPPROTO_ICMP:
		proto.AddRtAttr(ctaProtoICMPID, be16(t.ICMPID))
		proto.AddRtAttr(ctaProtoICMPType, []byte{t.ICMPType})
		proto.AddRtAttr(ctaProtoICMPCode, []byte{t.ICMPCode})
	case unix.IPPROTO_ICMPV6:
		proto.AddRtAttr(ctaProtoICMPv6ID, be16(t.ICMPID))
		proto.AddRtAttr(ctaProtoICMPv6Type, []byte{t.ICMPType})
		proto.AddRtAttr(ctaProtoICMPv6Code, []byte{t.ICMPCode})
	default:
		proto.AddRtAttr(ctaProtoSrcPort, be16(t.SrcPort))
		proto.AddRtAttr(ctaProtoDstPort, be16(t.DstPort))
	}
	return tuple
}

func nested(kind int) *nl.RtAttr { return nl.NewRtAttr(kind|unix.NLA_F_NESTED, nil) }

func be16(v uint16) []byte { return binary.BigEndian.AppendUint16(nil, v) }

func be32(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }
