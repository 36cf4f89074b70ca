package vxlan

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/tunnel"
)

// Pending is what keeps the kernel from being as the plan wants it now: of the device,
// of the rules, and of the routes those to the address and those for everything.
func (a *Applier) Pending(plan tunnel.Plan, to netip.Addr) (tunnel.Pending, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out tunnel.Pending
	oif := 0
	dev, err := a.conn.link(a.cfg.Device, 0)
	switch {
	case errors.Is(err, unix.ENODEV):
		out.Device = append(out.Device, fmt.Sprintf("device %s is missing", a.cfg.Device))
	case err != nil:
		return out, fmt.Errorf("read device %s: %w", a.cfg.Device, err)
	default:
		oif = dev.index
		if want := (vxlanInfo{port: a.cfg.Port, gpe: true, external: true}); dev.kind != "vxlan" || dev.vxlan != want {
			out.Device = append(out.Device, fmt.Sprintf("device %s has other parameters than UDP port %d, gpe, external", dev.name, a.cfg.Port))
		}
		if !dev.up {
			out.Device = append(out.Device, fmt.Sprintf("device %s is down", dev.name))
		}
		addrs, err := a.conn.addresses()
		if err != nil {
			return out, err
		}
		if !slices.Contains(addrs, address{addr: plan.Local, bits: 32, index: dev.index}) {
			out.Device = append(out.Device, fmt.Sprintf("device %s lacks the address %s/32", dev.name, plan.Local))
		}
	}
	add, _, err := a.diffRules(plan)
	if err != nil {
		return out, err
	}
	for _, r := range add {
		out.Rules = append(out.Rules, r.what())
	}
	plan.Routes = slices.DeleteFunc(slices.Clone(plan.Routes), func(r tunnel.Route) bool {
		return r.Remote.IsValid() && r.Dst.Bits() > 0 && r.Dst.Addr() != to
	})
	put, _, err := a.diffRoutes(plan, oif, a.conn.listed)
	for _, r := range put {
		out.Routes = append(out.Routes, r.what())
	}
	return out, err
}

// Way asks the kernel which way packets with the mark to the address take.
func (a *Applier) Way(to netip.Addr, mark uint32) (tunnel.Way, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !to.Is4() {
		return tunnel.Way{}, fmt.Errorf("ask for the way to %s: IPv6 is not there yet", to)
	}
	msg := &nl.RtMsg{RtMsg: unix.RtMsg{Family: unix.AF_INET, Dst_len: 32, Flags: unix.RTM_F_LOOKUP_TABLE}}
	answer, err := a.conn.get(unix.RTM_GETROUTE, body(msg, attr(unix.RTA_DST, to.AsSlice()), attr(unix.RTA_MARK, nl.Uint32Attr(mark))))
	if err != nil {
		return tunnel.Way{}, fmt.Errorf("ask for the way to %s with mark %#x: %w", to, mark, err)
	}
	if len(answer) < unix.SizeofRtMsg {
		return tunnel.Way{}, fmt.Errorf("ask for the way to %s with mark %#x: the kernel does not say", to, mark)
	}
	e := decodeRoute(answer)
	l, err := a.conn.link("", e.oif)
	if err != nil {
		return tunnel.Way{}, fmt.Errorf("read interface %d: %w", e.oif, err)
	}
	return tunnel.Way{Device: l.name, Table: e.table, Remote: e.remote}, nil
}
