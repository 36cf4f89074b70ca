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
