package lab

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
)

// The addresses of every lab (RFC 5737 for what is outside of it).
var (
	outsideNet = netip.MustParsePrefix("192.0.2.0/24")
	insideNet  = netip.MustParsePrefix("10.0.0.0/24")
	podNet     = netip.MustParsePrefix("10.244.0.0/16")

	// PartnerAddr admits only the VIPs.
	PartnerAddr = netip.MustParseAddr("203.0.113.5")
	// PublicAddr is the partner's too and admits everyone: what unselected traffic
	// looks like from outside.
	PublicAddr = netip.MustParseAddr("203.0.113.9")

	routerOutside = netip.MustParseAddr("192.0.2.254")
	routerPartner = netip.MustParseAddr("203.0.113.1")
	// The ARP watch asks in the name of an address nobody has.
	askerAddr = netip.MustParseAddr("192.0.2.253")
	askerMAC  = mac(0xfd, 0)
)

// questionMAC is the asker's address in a question, which comes back in its answer.
func questionMAC(number uint16) net.HardwareAddr { return mac(0xfd, int(number)) }

func questionNumber(a net.HardwareAddr) (number uint16, is bool) {
	if len(a) != 6 || !bytes.Equal(a, questionMAC(binary.BigEndian.Uint16(a[3:]))) {
		return 0, false
	}
	return binary.BigEndian.Uint16(a[3:]), true
}

// firstPod is the last octet of pod-j-1.
const firstPod = 10

// NodeName is the name of node j.
func NodeName(j int) string { return fmt.Sprintf("n%d", j) }

// OutsideAddr is node j's address on the outside segment.
func OutsideAddr(j int) netip.Addr { return host(outsideNet, j) }

// NodeIP is the address that node j's programs are given: the inside one where
// there are two networks.
func (l *Lab) NodeIP(j int) netip.Addr {
	if l.Options.TwoNetworks {
		return host(insideNet, j)
	}
	return host(outsideNet, j)
}

// InsideOf is the tunnel end of the VIP's holder.
func (l *Lab) InsideOf(vip netip.Addr) netip.Addr {
	if l.Options.TwoNetworks {
		return host(insideNet, int(vip.As4()[3]))
	}
	return vip
}

// VIPFlag is the value of --vip.
func (l *Lab) VIPFlag(vip netip.Addr) string {
	if l.Options.TwoNetworks {
		return fmt.Sprintf("%s@eth0,via=%s@eth1", vip, l.InsideOf(vip))
	}
	return vip.String() + "@eth0"
}

// NodeMAC is the Ethernet address of node j's outside interface.
func NodeMAC(j int) net.HardwareAddr { return mac(j, 0) }

// PodCIDR is the range of node j's pods.
func PodCIDR(j int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, byte(j), 0}), 24)
}

// host is the n-th address of a /24.
func host(p netip.Prefix, n int) netip.Addr {
	b := p.Addr().As4()
	b[3] = byte(n)
	return netip.AddrFrom4(b)
}

// mac is a locally administered address (IEEE 802, second bit of the first octet),
// the same in every run, so that listings of two runs can be compared.
func mac(host, port int) net.HardwareAddr {
	return net.HardwareAddr{0x02, 0x5a, 0x11, byte(port >> 8), byte(port), byte(host)}
}
