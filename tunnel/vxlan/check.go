package vxlan

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/gateway"
	"github.com/sallyport/sallyport/tunnel"
)

// From include/uapi/linux/netconf.h; x/sys/unix has them not.
const (
	netconfaIfindex    = 1
	netconfaForwarding = 2
	netconfaAll        = -1
)

// smallMTU is IPv6's minimum (RFC 8200, section 5), below which some stacks and
// middleboxes no longer believe a path MTU.
const smallMTU = 1280

// Check says what settings of this host keep the tunnel from working, each with
// its cure. They are the host's, so they are named and not changed. Harmless are
// all.rp_filter=1, since the device's own 2 is larger, and a strict filter on the
// underlay, which sees only addresses that are routed there.
//
// The underlay is known from the device, so before the first Apply only what
// concerns the whole host is looked at.
func (a *Applier) Check() []gateway.Problem {
	a.mu.Lock()
	defer a.mu.Unlock()
	var problems []gateway.Problem
	found := func(object, format string, args ...any) {
		problems = append(problems, gateway.Problem{Object: object, Reason: gateway.Misconfigured, Message: fmt.Sprintf(format, args...)})
	}
	forwards, err := a.conn.forwarding(netconfaAll)
	if err != nil {
		found("sysctl net.ipv4.ip_forward", "%v", err)
		return problems
	}
	if !forwards {
		found("sysctl net.ipv4.ip_forward", "is 0, so this host forwards nothing for its pods: set it to 1")
	}
	dev, err := a.conn.link(a.cfg.Device, 0)
	if errors.Is(err, unix.ENODEV) {
		return problems
	}
	if err != nil {
		found("interface "+a.cfg.Device, "cannot be read: %v", err)
		return problems
	}
	if dev.rpFilter != looseFilter {
		found("sysctl net.ipv4.conf."+dev.name+".rp_filter", "is %d, so replies out of the tunnel are dropped: set it to %d", dev.rpFilter, looseFilter)
	}
	if forwards && dev.forwarding == 0 {
		found("sysctl net.ipv4.conf."+dev.name+".forwarding", "is 0, so what leaves the tunnel is not forwarded: set it, and net.ipv4.conf.default.forwarding, to 1")
	}
	underlay, known, err := a.below(dev)
	if err != nil {
		found("interface "+dev.name, "%v", err)
	}
	if err != nil || !known {
		return problems
	}
	if forwards && underlay.forwarding == 0 {
		found("sysctl net.ipv4.conf."+underlay.name+".forwarding", "is 0, so what arrives there is not forwarded: set it to 1")
	}
	if dev.mtu < smallMTU {
		found("interface "+underlay.name, "leaves packets inside the tunnel an MTU of %d: raise its MTU to %d or more", dev.mtu, smallMTU+tunnel.Overhead)
	}
	return problems
}

// below is the underlay's interface, as the device's own address tells it.
func (a *Applier) below(dev link) (underlay link, known bool, err error) {
	addrs, err := a.conn.addresses()
	if err != nil {
		return link{}, false, err
	}
	for _, ad := range addrs {
		if ad.index == dev.index && ad.bits == 32 {
			underlay, err = a.underlay(addrs, ad.addr)
			return underlay, err == nil, err
		}
	}
	return link{}, false, nil
}

// forwarding reads net.ipv4.conf.*.forwarding of an interface or of "all", which
// is ip_forward.
func (c *conn) forwarding(index int) (bool, error) {
	// A struct netconfmsg is the family alone, padded.
	msg := append([]byte{unix.AF_INET, 0, 0, 0}, attr(netconfaIfindex, nl.Uint32Attr(uint32(int32(index)))).Serialize()...)
	answer, err := c.get(unix.RTM_GETNETCONF, msg)
	if err != nil {
		return false, fmt.Errorf("cannot be read: %w", err)
	}
	for typ, data := range attributes(answer[min(4, len(answer)):]) {
		if typ == netconfaForwarding {
			return asU32(data) != 0, nil
		}
	}
	return false, errors.New("cannot be read: the kernel does not say")
}
