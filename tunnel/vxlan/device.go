package vxlan

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/tunnel"
)

// Prefix begins the names of our devices.
const Prefix = "sally"

// looseFilter is the reverse-path filter of the device: replies come out of it
// from addresses that are routed elsewhere. The kernel takes the stricter of this
// and all.rp_filter, which as numbers is the larger: 2, loose, beats 1.
const looseFilter = 2

// device brings the tunnel device to what local asks for and gives its index.
// Unless something has to change, nothing is sent.
func (a *Applier) device(ctx context.Context, local netip.Addr) (int, error) {
	addrs, err := a.conn.addresses()
	if err != nil {
		return 0, err
	}
	underlay, err := a.underlay(addrs, local)
	if err != nil {
		return 0, err
	}
	room, err := a.room(addrs, underlay)
	if err != nil {
		return 0, err
	}
	mtu := room - tunnel.Overhead
	dev, err := a.made(ctx, mtu)
	if err != nil {
		return 0, err
	}

	var reqs []request
	if dev.mtu != mtu {
		a.log.Info("tunnel device follows the underlay", "device", dev.name, "underlay", underlay.name, "mtu", mtu, "mtu_before", dev.mtu)
		reqs = append(reqs, setLink(dev.index, fmt.Sprintf("set MTU %d on %s", mtu, dev.name), attr(unix.IFLA_MTU, u32(mtu))))
	}
	if dev.addrGenMode >= 0 && dev.addrGenMode != addrGenModeNone {
		// Its router solicitations would count as errors of the device, having no tunnel end to go to.
		reqs = append(reqs, setLink(dev.index, "turn off link-local IPv6 addresses on "+dev.name,
			nest(unix.IFLA_AF_SPEC, nest(unix.AF_INET6, attr(unix.IFLA_INET6_ADDR_GEN_MODE, []byte{addrGenModeNone})))))
	}
	if dev.rpFilter != looseFilter {
		reqs = append(reqs, setLink(dev.index, fmt.Sprintf("set rp_filter %d on %s", looseFilter, dev.name),
			nest(unix.IFLA_AF_SPEC, nest(unix.AF_INET, nest(unix.IFLA_INET_CONF, attr(ipv4DevconfRPFilter, u32(looseFilter)))))))
	}
	reqs = append(reqs, addressChanges(addrs, dev, local)...)
	if !dev.up {
		reqs = append(reqs, setUp(dev.index, "bring up "+dev.name))
	}
	if len(reqs) == 0 {
		return dev.index, nil
	}
	if err := a.conn.change(ctx, reqs); err != nil {
		if errors.Is(err, unix.EADDRINUSE) {
			err = errors.Join(err, a.portTaken())
		}
		return 0, err
	}
	return dev.index, a.verify(dev.index)
}

// verify reads back what has no error to tell that it was not taken.
func (a *Applier) verify(index int) error {
	dev, err := a.conn.link("", index)
	if err != nil {
		return fmt.Errorf("read back device %s: %w", a.cfg.Device, err)
	}
	if dev.rpFilter != looseFilter {
		return fmt.Errorf("rp_filter of %s is %d after setting it to %d over netlink: the host would drop replies; set net.ipv4.conf.%s.rp_filter=%d on it",
			dev.name, dev.rpFilter, looseFilter, dev.name, looseFilter)
	}
	if !dev.up {
		return fmt.Errorf("device %s is down after bringing it up", dev.name)
	}
	return nil
}

// underlay is the interface that holds the address, ours aside.
func (a *Applier) underlay(addrs []address, local netip.Addr) (link, error) {
	for _, ad := range addrs {
		if ad.addr != local {
			continue
		}
		l, err := a.conn.link("", ad.index)
		if err != nil {
			return link{}, fmt.Errorf("read interface %d, which holds %s: %w", ad.index, local, err)
		}
		if !ours(l) {
			return l, nil
		}
	}
	links, err := a.conn.links()
	if err != nil {
		return link{}, err
	}
	var seen []string
	for _, ad := range addrs {
		i := slices.IndexFunc(links, func(l link) bool { return l.index == ad.index })
		if i >= 0 && !links[i].loopback && !ours(links[i]) {
			seen = append(seen, fmt.Sprintf("%s on %s", ad.addr, links[i].name))
		}
	}
	if len(seen) == 0 {
		seen = []string{"none"}
	}
	return link{}, fmt.Errorf("no interface of this host has address %s (there are: %s): give one of them with --node-ip", local, strings.Join(seen, ", "))
}

// room is the MTU that outer packets have. A tunnel end on lo (hosts that speak
// BGP) says nothing about the network: then it is the smallest of the interfaces
// that packets may leave by.
func (a *Applier) room(addrs []address, underlay link) (int, error) {
	if !underlay.loopback {
		return underlay.mtu, nil
	}
	links, err := a.conn.links()
	if err != nil {
		return 0, err
	}
	mtu := underlay.mtu
	for _, l := range links {
		if l.up && !l.loopback && !ours(l) && slices.ContainsFunc(addrs, func(ad address) bool { return ad.index == l.index }) {
			mtu = min(mtu, l.mtu)
		}
	}
	return mtu, nil
}

// ours recognises the devices of every version.
func ours(l link) bool { return l.kind == "vxlan" && strings.HasPrefix(l.name, Prefix) }

// made gives the device, making or rebuilding it where it must. A second program
// may be doing the same at this moment.
func (a *Applier) made(ctx context.Context, mtu int) (link, error) {
	want := vxlanInfo{port: a.cfg.Port, gpe: true, external: true}
	for range 5 {
		dev, err := a.conn.link(a.cfg.Device, 0)
		switch {
		case errors.Is(err, unix.ENODEV):
			err := a.conn.change(ctx, []request{newVXLAN(a.cfg.Device, a.cfg.Port, mtu)})
			switch {
			case errors.Is(err, unix.EEXIST):
				if _, err := a.conn.link(a.cfg.Device, 0); err != nil { // not the name but the port
					return link{}, a.portTaken()
				}
			case err != nil:
				return link{}, err
			default:
				a.log.Info("tunnel device made", "device", a.cfg.Device, "port", a.cfg.Port, "mtu", mtu)
			}
		case err != nil:
			return link{}, fmt.Errorf("read device %s: %w", a.cfg.Device, err)
		case dev.kind != "vxlan":
			kind := dev.kind
			if kind == "" {
				kind = "hardware"
			}
			return link{}, fmt.Errorf("device %s exists and is not ours (kind %s): rename it, or choose another name for the tunnel device", dev.name, kind)
		case dev.vxlan != want:
			a.log.Warn("tunnel device has other parameters and is rebuilt", "device", dev.name,
				"port", dev.vxlan.port, "gpe", dev.vxlan.gpe, "external", dev.vxlan.external, "learning", dev.vxlan.learning,
				"wanted_port", want.port)
			if err := a.conn.change(ctx, []request{deleteLink(dev)}); err != nil {
				return link{}, err
			}
		default:
			return dev, nil
		}
	}
	return link{}, fmt.Errorf("device %s keeps changing: does another program on this host use it with another port than %d?", a.cfg.Device, a.cfg.Port)
}

// portTaken names who has the UDP port.
func (a *Applier) portTaken() error {
	who := "another program on this host"
	links, err := a.conn.links()
	for _, l := range links {
		if l.kind == "vxlan" && l.vxlan.port == a.cfg.Port && l.name != a.cfg.Device {
			who = "VXLAN device " + l.name
		}
	}
	return errors.Join(fmt.Errorf("UDP port %d is in use by %s: remove that, or choose another port with --tunnel-port, the same on all nodes", a.cfg.Port, who), err)
}

// addressChanges gives the device its address: on a device without one the loose
// filter drops (net/ipv4/fib_frontend.c, __fib_validate_source). An address that
// no other interface has is of an earlier configuration; one that another has may
// be the other program's tunnel end. The new one comes first: with its last address
// the device would lose its routes (fib_inetaddr_event).
func addressChanges(addrs []address, dev link, local netip.Addr) []request {
	var reqs []request
	want := address{addr: local, bits: 32, index: dev.index}
	if !slices.Contains(addrs, want) {
		reqs = append(reqs, changeAddress(unix.RTM_NEWADDR, want, fmt.Sprintf("add %s/32 on %s", local, dev.name)))
	}
	for _, ad := range addrs {
		alive := func(other address) bool { return other.addr == ad.addr && other.index != dev.index }
		if ad.index == dev.index && ad != want && (ad.bits != 32 || !slices.ContainsFunc(addrs, alive)) {
			reqs = append(reqs, changeAddress(unix.RTM_DELADDR, ad, fmt.Sprintf("remove %s/%d from %s", ad.addr, ad.bits, dev.name)))
		}
	}
	return reqs
}
