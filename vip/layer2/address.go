package layer2

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

const (
	ifaProto = 11 // IFA_PROTO, include/uapi/linux/if_addr.h, since Linux 5.18
	// addrProtocol marks addresses as ours, as a route's protocol does with routes.
	// `ip addr` shows it as "proto 0x53".
	addrProtocol = 0x53
)

// address is one address of the host.
type address struct {
	addr  netip.Addr
	bits  int
	index int // of its interface
	proto uint8
}

// addAddress adds addr to the interface. Our own that is there already is left, anybody
// else's is an error.
func (h *Host) addAddress(addr netip.Addr, iface string, index int) error {
	flags := uint32(unix.IFA_F_NOPREFIXROUTE)
	scope := uint8(unix.RT_SCOPE_UNIVERSE)
	if addr.Is4() {
		// IPv4 source selection (inet_select_addr) ignores lifetimes but not the scope:
		// the host must not choose the VIP for connections of its own.
		scope = unix.RT_SCOPE_HOST
	} else {
		flags |= unix.IFA_F_NODAD // a second holder is looked for by Probe, which does not hold up the claim
	}
	req := h.addressRequest(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, addr, index, scope)
	lifetimes := nl.IfaCacheInfo{IfaCacheinfo: unix.IfaCacheinfo{Prefered: 0, Valid: ^uint32(0)}}
	req.AddData(nl.NewRtAttr(unix.IFA_CACHEINFO, lifetimes.Serialize()))
	req.AddData(nl.NewRtAttr(unix.IFA_FLAGS, binary.NativeEndian.AppendUint32(nil, flags)))
	req.AddData(nl.NewRtAttr(ifaProto, []byte{addrProtocol}))
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	if errors.Is(err, unix.EEXIST) {
		all, listErr := h.addresses()
		if listErr != nil {
			return listErr
		}
		for _, a := range all {
			if a.addr == addr && a.index == index && h.ours(a, []netip.Addr{addr}) {
				return nil
			}
		}
		return fmt.Errorf("add %s on %s: the host has it from elsewhere: remove it there, it may only be where the VIP is held", addr, iface)
	}
	if err != nil {
		return fmt.Errorf("add %s on %s: %w", addr, iface, err)
	}
	return nil
}

// deleteAddress tolerates that the address or its interface has gone.
func (h *Host) deleteAddress(a address) error {
	req := h.addressRequest(unix.RTM_DELADDR, 0, a.addr, a.index, 0)
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	if err == nil || errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return fmt.Errorf("remove %s from interface %d: %w", a.addr, a.index, err)
}

// forgetNeighbour forgets which host had the address before this one: it may have
// moved since, and what is sent there instead of being resolved anew is lost.
func (h *Host) forgetNeighbour(a address) error {
	n := &netlink.Neigh{LinkIndex: a.index, IP: a.addr.AsSlice()}
	if err := h.links.NeighDel(n); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.ENETDOWN) {
		return fmt.Errorf("forget which host had %s before: %w", a.addr, err)
	}
	return nil
}

func (h *Host) addressRequest(kind, flags int, addr netip.Addr, index int, scope uint8) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(kind, flags|unix.NLM_F_ACK)
	req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: h.routes}
	family := netlink.FAMILY_V4
	if addr.Is6() {
		family = netlink.FAMILY_V6
	}
	msg := nl.NewIfAddrmsg(family)
	msg.Prefixlen, msg.Index, msg.Scope = uint8(addr.BitLen()), uint32(index), scope
	req.AddData(msg)
	req.AddData(nl.NewRtAttr(unix.IFA_LOCAL, addr.AsSlice()))
	req.AddData(nl.NewRtAttr(unix.IFA_ADDRESS, addr.AsSlice()))
	return req
}

// dumpRetries bounds how often a list is read again that changed while it was read.
const dumpRetries = 10

// addresses lists all of the host's with their protocol.
func (h *Host) addresses() ([]address, error) {
	req := nl.NewNetlinkRequest(unix.RTM_GETADDR, unix.NLM_F_DUMP)
	req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: h.routes}
	req.AddData(nl.NewIfAddrmsg(netlink.FAMILY_ALL))
	messages, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWADDR)
	for range dumpRetries {
		if !errors.Is(err, nl.ErrDumpInterrupted) {
			break
		}
		messages, err = req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWADDR)
	}
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var out []address
	for _, m := range messages {
		msg := nl.DeserializeIfAddrmsg(m)
		attrs, err := nl.ParseRouteAttr(m[msg.Len():])
		if err != nil {
			return nil, fmt.Errorf("list addresses: %w", err)
		}
		a := address{bits: int(msg.Prefixlen), index: int(msg.Index)}
		for _, attr := range attrs {
			switch attr.Attr.Type {
			case unix.IFA_LOCAL:
				a.addr, _ = netip.AddrFromSlice(attr.Value)
			case unix.IFA_ADDRESS: // with IPv6 the only one
				if !a.addr.IsValid() {
					a.addr, _ = netip.AddrFromSlice(attr.Value)
				}
			case ifaProto:
				a.proto = attr.Value[0]
			}
		}
		out = append(out, a)
	}
	return out, nil
}

// ours tells an address that some process of ours added: by its protocol, or, where
// the kernel keeps none, by being a host prefix of one of the VIPs.
func (h *Host) ours(a address, vips []netip.Addr) bool {
	if a.proto == addrProtocol {
		return true
	}
	return a.proto == 0 && !h.protocols && a.bits == a.addr.BitLen() && slices.Contains(vips, a.addr)
}

// keepsProtocol says whether a kernel of this release keeps IFA_PROTO.
func keepsProtocol(release string) bool {
	parts := strings.SplitN(release, ".", 3)
	if len(parts) < 2 {
		return false
	}
	major, err1 := strconv.Atoi(parts[0])
	minor, err2 := strconv.Atoi(strings.TrimRight(parts[1], "-+abcdefghijklmnopqrstuvwxyz"))
	return err1 == nil && err2 == nil && (major > 5 || major == 5 && minor >= 18)
}

// Reap removes addresses of ours, left by a process that died, and names them. Vips
// are the addresses that may be ours on a kernel that keeps no address protocol.
func (h *Host) Reap(vips []netip.Addr) ([]netip.Addr, error) {
	all, err := h.addresses()
	if err != nil {
		return nil, err
	}
	var gone []netip.Addr
	var errs []error
	for _, a := range all {
		if !h.ours(a, vips) {
			continue
		}
		if err := h.deleteAddress(a); err != nil {
			errs = append(errs, err)
			continue
		}
		gone = append(gone, a.addr)
	}
	return gone, errors.Join(errs...)
}

// Cleanup removes everything of this package from the host, whoever made it.
func (h *Host) Cleanup(vips []netip.Addr) error {
	f, err := NewFence(h)
	if err != nil {
		return err
	}
	r, err := NewRelay(h, nil, 0, slog.New(slog.DiscardHandler))
	if err != nil {
		return errors.Join(err, f.Stop())
	}
	// First the addresses: without the fence they would be answered for.
	_, err = h.Reap(vips)
	return errors.Join(err, f.Remove(), f.Stop(), r.Remove(), r.Stop())
}
