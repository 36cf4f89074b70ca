package vxlan

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// From include/uapi/linux/ip.h and include/uapi/linux/if_link.h; x/sys/unix has
// them not.
const (
	ipv4DevconfForwarding = 1
	ipv4DevconfRPFilter   = 8
	addrGenModeNone       = 1
)

// link is what we read of an interface.
type link struct {
	index, mtu int
	name, kind string
	up         bool
	loopback   bool
	vxlan      vxlanInfo
	// forwarding and rpFilter are the interface's own sysctls of IPv4; -1 when the
	// kernel does not say.
	forwarding, rpFilter int
	// addrGenMode is how IPv6 makes link-local addresses; -1 without IPv6.
	addrGenMode int
}

type vxlanInfo struct {
	port                    uint16
	gpe, external, learning bool
}

// link gives one interface by name, or by index where the name is "".
func (c *conn) link(name string, index int) (link, error) {
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	var attrs []*nl.RtAttr
	if name != "" {
		attrs = append(attrs, attr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
	} else {
		msg.Index = int32(index)
	}
	answer, err := c.get(unix.RTM_GETLINK, body(msg, attrs...))
	if err != nil {
		return link{}, err
	}
	return decodeLink(answer), nil
}

func (c *conn) links() ([]link, error) {
	var links []link
	err := c.dump(unix.RTM_GETLINK, body(nl.NewIfInfomsg(unix.AF_UNSPEC)), func() { links = nil }, func(b []byte) {
		links = append(links, decodeLink(b))
	})
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	return links, nil
}

func decodeLink(b []byte) link {
	l := link{forwarding: -1, rpFilter: -1, addrGenMode: -1}
	if len(b) < unix.SizeofIfInfomsg {
		return l
	}
	h := nl.DeserializeIfInfomsg(b)
	l.index, l.up, l.loopback = int(h.Index), h.Flags&unix.IFF_UP != 0, h.Flags&unix.IFF_LOOPBACK != 0
	for typ, data := range attributes(b[unix.SizeofIfInfomsg:]) {
		switch typ {
		case unix.IFLA_IFNAME:
			l.name = unix.ByteSliceToString(data)
		case unix.IFLA_MTU:
			l.mtu = int(asU32(data))
		case unix.IFLA_LINKINFO:
			l.decodeInfo(data)
		case unix.IFLA_AF_SPEC:
			for family, data := range attributes(data) {
				for typ, data := range attributes(data) {
					switch {
					case family == unix.AF_INET && typ == unix.IFLA_INET_CONF && len(data) >= 4*ipv4DevconfRPFilter:
						l.forwarding = int(asU32(data[4*(ipv4DevconfForwarding-1):]))
						l.rpFilter = int(asU32(data[4*(ipv4DevconfRPFilter-1):]))
					case family == unix.AF_INET6 && typ == unix.IFLA_INET6_ADDR_GEN_MODE && len(data) > 0:
						l.addrGenMode = int(data[0])
					}
				}
			}
		}
	}
	return l
}

func (l *link) decodeInfo(b []byte) {
	for typ, data := range attributes(b) {
		switch typ {
		case unix.IFLA_INFO_KIND:
			l.kind = unix.ByteSliceToString(data)
		case unix.IFLA_INFO_DATA:
			if l.kind != "vxlan" {
				continue
			}
			for typ, data := range attributes(data) {
				on := len(data) > 0 && data[0] != 0
				switch typ {
				case unix.IFLA_VXLAN_PORT:
					if len(data) == 2 {
						l.vxlan.port = binary.BigEndian.Uint16(data)
					}
				case unix.IFLA_VXLAN_GPE:
					l.vxlan.gpe = true
				case unix.IFLA_VXLAN_COLLECT_METADATA:
					l.vxlan.external = on
				case unix.IFLA_VXLAN_LEARNING:
					l.vxlan.learning = on
				}
			}
		}
	}
}

// newVXLAN makes a VXLAN-GPE device in external mode. Learning is on unless
// refused, and GPE does not go with it (drivers/net/vxlan/vxlan_core.c,
// VXLAN_F_ALLOWED_GPE).
func newVXLAN(name string, port uint16, mtu int) request {
	return request{
		typ: unix.RTM_NEWLINK, flags: unix.NLM_F_CREATE | unix.NLM_F_EXCL,
		what: func() string { return "make VXLAN-GPE device " + name },
		body: body(nl.NewIfInfomsg(unix.AF_UNSPEC),
			attr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)),
			attr(unix.IFLA_MTU, u32(mtu)),
			nest(unix.IFLA_LINKINFO,
				attr(unix.IFLA_INFO_KIND, nl.NonZeroTerminated("vxlan")),
				nest(unix.IFLA_INFO_DATA,
					attr(unix.IFLA_VXLAN_COLLECT_METADATA, []byte{1}),
					attr(unix.IFLA_VXLAN_GPE, nil),
					attr(unix.IFLA_VXLAN_LEARNING, []byte{0}),
					attr(unix.IFLA_VXLAN_PORT, binary.BigEndian.AppendUint16(nil, port)),
				))),
	}
}

func setLink(index int, what string, attrs ...*nl.RtAttr) request {
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(index)
	return request{typ: unix.RTM_SETLINK, what: func() string { return what }, body: body(msg, attrs...)}
}

func setUp(index int, what string) request {
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index, msg.Flags, msg.Change = int32(index), unix.IFF_UP, unix.IFF_UP
	return request{typ: unix.RTM_SETLINK, what: func() string { return what }, body: body(msg)}
}

func deleteLink(l link) request {
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(l.index)
	return request{
		typ: unix.RTM_DELLINK, body: body(msg), gone: []unix.Errno{unix.ENODEV},
		what: func() string { return "remove device " + l.name },
	}
}

// address is an IPv4 address of an interface.
type address struct {
	addr  netip.Addr
	bits  int
	index int
}

func (c *conn) addresses() ([]address, error) {
	var list []address
	err := c.dump(unix.RTM_GETADDR, body(nl.NewIfAddrmsg(unix.AF_INET)), func() { list = nil }, func(b []byte) {
		if len(b) < unix.SizeofIfAddrmsg || b[0] != unix.AF_INET {
			return
		}
		h := nl.DeserializeIfAddrmsg(b)
		a := address{bits: int(h.Prefixlen), index: int(h.Index)}
		for typ, data := range attributes(b[unix.SizeofIfAddrmsg:]) {
			if typ == unix.IFA_LOCAL {
				a.addr = asAddr(data)
			}
		}
		list = append(list, a)
	})
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	return list, nil
}

// changeAddress adds (RTM_NEWADDR) or deletes (RTM_DELADDR).
func changeAddress(typ uint16, a address, what string) request {
	msg := nl.NewIfAddrmsg(unix.AF_INET)
	msg.Prefixlen, msg.Index = uint8(a.bits), uint32(a.index)
	r := request{typ: typ, what: func() string { return what }, body: body(msg,
		attr(unix.IFA_LOCAL, a.addr.AsSlice()),
		attr(unix.IFA_ADDRESS, a.addr.AsSlice()),
		attr(unix.IFA_FLAGS, u32(unix.IFA_F_NOPREFIXROUTE)),
	)}
	if typ == unix.RTM_NEWADDR {
		r.flags, r.gone = unix.NLM_F_CREATE|unix.NLM_F_EXCL, []unix.Errno{unix.EEXIST}
	} else {
		r.gone = []unix.Errno{unix.EADDRNOTAVAIL}
	}
	return r
}
