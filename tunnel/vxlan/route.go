package vxlan

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/tunnel"
)

// From include/uapi/linux/lwtunnel.h and rtnetlink.h; x/sys/unix has them not.
const (
	rtaNHID = 30

	lwtunnelIPID    = 1
	lwtunnelIPDst   = 2
	lwtunnelIPSrc   = 3
	lwtunnelIPTTL   = 4
	lwtunnelIPTOS   = 5
	lwtunnelIPFlags = 6
	lwtunnelIPOpts  = 8
)

// key is what the kernel knows a route by in the absence of metric and TOS.
type key struct {
	table int
	dst   netip.Prefix
}

func placeOf(r tunnel.Route) key { return key{r.Table, r.Dst} }

func (k key) compare(other key) int {
	if k.table != other.table {
		return cmp.Compare(k.table, other.table)
	}
	if c := k.dst.Addr().Compare(other.dst.Addr()); c != 0 {
		return c
	}
	return cmp.Compare(k.dst.Bits(), other.dst.Bits())
}

// entry is a route as the kernel lists it.
type entry struct {
	key
	protocol uint8
	throw    bool
	remote   netip.Addr
	local    netip.Addr
	vni      uint64
	oif      int
	// plain is false for a metric or TOS: such a route stands beside ours.
	plain bool
	// odd is set for whatever ours never have.
	odd bool
	// message is the listing itself: sent back, it deletes this route.
	message []byte
}

// routes lists the routes of a family that have the table and the protocol; 0 is
// any. The kernel filters (net/ipv4/fib_frontend.c, ip_valid_fib_dump_req). About is how
// many there may be: to make room for thousands again and again would take as long as
// to read them.
func (c *conn) routes(family uint8, table int, protocol uint8, about int) ([]entry, error) {
	msg := &nl.RtMsg{RtMsg: unix.RtMsg{Family: family, Protocol: protocol}}
	var attrs []*nl.RtAttr
	if table != 0 {
		attrs = append(attrs, attr(unix.RTA_TABLE, u32(table)))
	}
	list := make([]entry, 0, about)
	err := c.dump(unix.RTM_GETROUTE, body(msg, attrs...), func() { list = list[:0] }, func(b []byte) {
		// A kernel without IPv6 answers with the routes of every family it has.
		if len(b) < unix.SizeofRtMsg || b[0] != family {
			return
		}
		e := decodeRoute(b)
		if (table == 0 || e.table == table) && (protocol == 0 || e.protocol == protocol) {
			list = append(list, e)
		}
	})
	if errors.Is(err, unix.ENOENT) { // no such table
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	return list, nil
}

func decodeRoute(b []byte) entry {
	h := nl.DeserializeRtMsg(b)
	e := entry{
		key:      key{table: int(h.Table)},
		protocol: h.Protocol, throw: h.Type == unix.RTN_THROW, plain: h.Tos == 0,
		odd:     h.Type != unix.RTN_THROW && h.Type != unix.RTN_UNICAST,
		message: bytes.Clone(b),
	}
	dst := netip.IPv4Unspecified()
	if h.Family == unix.AF_INET6 {
		dst = netip.IPv6Unspecified()
	}
	encap := 0
	for typ, data := range attributes(b[unix.SizeofRtMsg:]) {
		switch typ {
		case unix.RTA_TABLE:
			e.table = int(asU32(data))
		case unix.RTA_DST:
			dst = asAddr(data)
		case unix.RTA_OIF:
			e.oif = int(asU32(data))
		case unix.RTA_ENCAP_TYPE:
			if len(data) >= 2 {
				encap = int(binary.NativeEndian.Uint16(data))
			}
		case unix.RTA_ENCAP:
			e.decodeEncap(data)
		case unix.RTA_PRIORITY:
			// IPv6 gives every route a metric of its own making.
			e.plain = e.plain && asU32(data) == 0
		case unix.RTA_GATEWAY, unix.RTA_PREFSRC, unix.RTA_METRICS, unix.RTA_MULTIPATH,
			unix.RTA_FLOW, unix.RTA_VIA, unix.RTA_NEWDST, rtaNHID:
			e.odd = true
		}
	}
	e.dst = netip.PrefixFrom(dst, int(h.Dst_len))
	e.odd = e.odd || !e.throw && encap != unix.LWTUNNEL_ENCAP_IP
	return e
}

func (e *entry) decodeEncap(b []byte) {
	for typ, data := range attributes(b) {
		switch typ {
		case lwtunnelIPID:
			if len(data) == 8 {
				e.vni = binary.BigEndian.Uint64(data)
			}
		case lwtunnelIPDst:
			e.remote = asAddr(data)
		case lwtunnelIPSrc:
			e.local = asAddr(data)
		case lwtunnelIPTTL, lwtunnelIPTOS, lwtunnelIPFlags, lwtunnelIPOpts:
			// 0 leaves the TTL to the host.
			e.odd = e.odd || len(bytes.Trim(data, "\x00")) > 0
		}
	}
}

// end is this host's end of the tunnel, which all routes into it name.
type end struct {
	vni uint32
	oif int
	// local is the outer source. Left to the kernel it would be the VIP where the
	// remote is the VIP and this host holds it: no node's address.
	local netip.Addr
}

// is reports whether the kernel's route is the wanted one.
func (e *entry) is(r tunnel.Route, at end) bool {
	switch {
	case e.odd || !e.plain || e.protocol != Protocol || e.throw == r.Remote.IsValid():
		return false
	case e.throw:
		return true
	}
	return e.remote == r.Remote && e.vni == uint64(at.vni) && e.oif == at.oif && e.local == at.local
}

func (e *entry) String() string {
	kind := ""
	if e.throw {
		kind = "throw "
	}
	return fmt.Sprintf("route %s%s in table %d (protocol %d)", kind, e.dst, e.table, e.protocol)
}

// putRoute adds a route, or replaces the one at its place.
func putRoute(r tunnel.Route, at end, replace bool) request {
	msg := &nl.RtMsg{RtMsg: unix.RtMsg{
		Family: unix.AF_INET, Dst_len: uint8(r.Dst.Bits()),
		Protocol: Protocol, Scope: unix.RT_SCOPE_UNIVERSE, Type: unix.RTN_THROW,
	}}
	attrs := []*nl.RtAttr{attr(unix.RTA_TABLE, u32(r.Table))}
	if r.Dst.Bits() > 0 {
		attrs = append(attrs, attr(unix.RTA_DST, r.Dst.Addr().AsSlice()))
	}
	if r.Remote.IsValid() {
		msg.Type, msg.Scope = unix.RTN_UNICAST, unix.RT_SCOPE_LINK
		attrs = append(attrs,
			attr(unix.RTA_OIF, u32(at.oif)),
			attr(unix.RTA_ENCAP_TYPE, nl.Uint16Attr(unix.LWTUNNEL_ENCAP_IP)),
			nest(unix.RTA_ENCAP,
				attr(lwtunnelIPID, binary.BigEndian.AppendUint64(nil, uint64(at.vni))),
				attr(lwtunnelIPDst, r.Remote.AsSlice()),
				attr(lwtunnelIPSrc, at.local.AsSlice()),
			))
	}
	verb, flags := "add", uint16(unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	if replace {
		verb, flags = "replace", unix.NLM_F_CREATE|unix.NLM_F_REPLACE
	}
	return request{typ: unix.RTM_NEWROUTE, flags: flags, body: body(msg, attrs...), what: func() string {
		if !r.Remote.IsValid() {
			return fmt.Sprintf("%s route throw %s in table %d", verb, r.Dst, r.Table)
		}
		return fmt.Sprintf("%s route %s in table %d to tunnel end %s", verb, r.Dst, r.Table, r.Remote)
	}}
}

func deleteRoute(e *entry) request {
	return request{
		typ: unix.RTM_DELROUTE, body: e.message, gone: []unix.Errno{unix.ESRCH, unix.ENOENT},
		vague: e.odd,
		what:  func() string { return "remove " + e.String() },
	}
}
