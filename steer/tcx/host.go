package tcx

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/tunnel"
	"github.com/sallyport/sallyport/vip"
)

// Find reads from the kernel what the programs have built in.
func Find(c tunnel.Config, local netip.Addr) (Device, error) {
	d := Device{Port: c.Port, VNI: c.VNI, Local: local}
	dev, err := net.InterfaceByName(c.Device)
	if err != nil {
		return d, fmt.Errorf("find %s: %w", c.Device, err)
	}
	d.Index, d.MTU = dev.Index, dev.MTU
	if err := scan("ip_local_port_range", &d.FirstPort, &d.LastPort); err != nil {
		return d, err
	}
	if err := scan("ip_default_ttl", &d.TTL); err != nil {
		return d, err
	}
	// What IPsec would encrypt must not go past it.
	policies, err := netlink.XfrmPolicyList(netlink.FAMILY_V4)
	if err != nil && !errors.Is(err, unix.ENOPROTOOPT) && !errors.Is(err, unix.EPROTONOSUPPORT) {
		return d, fmt.Errorf("list IPsec policies: %w", err)
	}
	if len(policies) > 0 {
		return d, nil
	}
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_V4)
	if err != nil {
		return d, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		if a.LinkIndex == d.Index || !a.IP.Equal(local.AsSlice()) {
			continue
		}
		l, err := netlink.LinkByIndex(a.LinkIndex)
		if err != nil {
			return d, fmt.Errorf("read interface %d: %w", a.LinkIndex, err)
		}
		if at := l.Attrs(); at.EncapType == "ether" && at.Flags&net.FlagLoopback == 0 {
			d.Underlay = at.Index
		}
	}
	return d, nil
}

func scan(name string, into ...any) error {
	text, err := os.ReadFile("/proc/sys/net/ipv4/" + name)
	if err != nil {
		return fmt.Errorf("read a setting of IPv4: %w", err)
	}
	if _, err := fmt.Sscan(string(text), into...); err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	return nil
}

// fit are the interfaces whose packets nothing shapes: veth, whose other end a reply can be
// handed to, without a queueing discipline that would be passed by (that of the bandwidth
// plugin, or filters of another's).
func fit() (map[int]bool, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	queues, err := netlink.QdiscList(nil)
	if err != nil {
		return nil, fmt.Errorf("list queueing disciplines: %w", err)
	}
	fits := map[int]bool{}
	for _, l := range links {
		fits[l.Attrs().Index] = l.Type() == "veth"
	}
	for _, q := range queues {
		if q.Type() != "noqueue" {
			delete(fits, q.Attrs().LinkIndex)
		}
	}
	return fits, nil
}

// FindFront reads from the kernel what a gateway's programs have built in. A VIP of which an interface is
// not Ethernet, or has filters of somebody else where packets come in, is left to the slow path.
func FindFront(c tunnel.Config, local netip.Addr, vips []vip.VIP) (Front, error) {
	d, err := Find(c, local)
	g := Front{Device: d}
	if err != nil {
		return g, err
	}
	if d.Underlay == 0 {
		return g, fmt.Errorf("%s is on no Ethernet interface, or the host has IPsec policies", local)
	}
	queues, err := netlink.QdiscList(nil)
	if err != nil {
		return g, fmt.Errorf("list queueing disciplines: %w", err)
	}
	filtered := map[int]bool{}
	for _, q := range queues {
		filtered[q.Attrs().LinkIndex] = filtered[q.Attrs().LinkIndex] || q.Type() == "ingress" || q.Type() == "clsact"
	}
	index := func(name string) (int, error) {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return 0, fmt.Errorf("find %s: %w", name, err)
		}
		if at := l.Attrs(); at.EncapType == "ether" && at.Flags&net.FlagLoopback == 0 && !filtered[at.Index] {
			return at.Index, nil
		}
		return 0, nil
	}
	for _, v := range vips {
		a := Address{VIP: v.Addr, Inside: v.Inside()}
		if a.Outer, err = index(v.Interface); err != nil {
			return g, err
		}
		a.Inner = a.Outer
		if v.Via.IsValid() {
			if a.Inner, err = index(v.ViaInterface); err != nil {
				return g, err
			}
		}
		if v.Addr.Is4() && a.Outer != 0 && a.Inner != 0 {
			g.VIPs = append(g.VIPs, a)
		}
	}
	return g, nil
}
