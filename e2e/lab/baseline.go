package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
)

// Baselines of the benchmarks. Each changes the lab for good: make one lab for
// each way that is compared.

// PlainForwarding lets pods reach the partner with their own addresses: no
// translation and no tunnel anywhere, routes back on the router.
func (l *Lab) PlainForwarding() error {
	r, err := l.machine(Router)
	if err != nil {
		return err
	}
	errs := []error{l.Partner.Admit(podNet)}
	for j := 1; j <= l.Options.Nodes; j++ {
		errs = append(errs, r.route(PodCIDR(j), OutsideAddr(j)))
		if !l.Options.MasqueradeLate {
			errs = append(errs, l.Unmasquerade(j))
		}
	}
	return errors.Join(errs...)
}

const (
	vxlanGateway = `set -e
ip link add hand0 type vxlan id 77 local %[1]s dstport 4789
ip link set hand0 mtu 1450 up
ip addr add 172.31.255.%[2]d/24 dev hand0
ip addr add %[3]s/32 dev eth0 noprefixroute
`
	vxlanPeer = `bridge fdb append 00:00:00:00:00:00 dev hand0 dst %[1]s
ip route replace %[2]s via 172.31.255.%[3]d dev hand0
`
	vxlanNode = `set -e
ip link add hand0 type vxlan id 77 local %[1]s remote %[2]s dstport 4789
ip link set hand0 mtu 1450 up
ip addr add 172.31.255.%[3]d/24 dev hand0
ip rule add from %[4]s lookup 4242 prio 100
ip route add table 4242 %[5]s/32 via 172.31.255.%[6]d dev hand0
`
	vxlanSNAT = `table ip hand {
	chain source {
		type nat hook postrouting priority 95
		oifname "eth0" ip saddr %s ip daddr %s snat to %s
	}
}
`
)

// HandMadeTunnel is what one would configure without Sallyport and without hope of
// failover: an ordinary VXLAN from each node to one gateway, and on the gateway one
// SNAT rule. All pods use it towards PartnerAddr.
func (l *Lab) HandMadeTunnel(gateway int) error {
	vip := l.Options.VIPs[0]
	gw, err := l.machine(NodeName(gateway))
	if err != nil {
		return err
	}
	atGateway := fmt.Sprintf(vxlanGateway, l.NodeIP(gateway), gateway, vip)
	var errs []error
	for j := 1; j <= l.Options.Nodes; j++ {
		if !l.Options.MasqueradeLate {
			errs = append(errs, l.Unmasquerade(j))
		}
		if j == gateway {
			continue
		}
		atGateway += fmt.Sprintf(vxlanPeer, l.NodeIP(j), PodCIDR(j), j)
		_, err := l.Exec(NodeName(j), "sh", "-c",
			fmt.Sprintf(vxlanNode, l.NodeIP(j), l.NodeIP(gateway), j, PodCIDR(j), PartnerAddr, gateway))
		errs = append(errs, err)
	}
	_, err = gw.Run("sh", "-c", atGateway)
	errs = append(errs, err, gw.nft(fmt.Sprintf(vxlanSNAT, podNet, PartnerAddr, vip)), l.Announce(gateway, vip))
	return errors.Join(errs...)
}

// Claim broadcasts that a host of the outside segment that is no node has the VIP, and gives its MAC.
func (l *Lab) Claim(host string, vip netip.Addr) (net.HardwareAddr, error) {
	m, err := l.machine(host)
	if err != nil {
		return nil, err
	}
	link, err := m.nl.LinkByName("eth0")
	if err != nil {
		return nil, fmt.Errorf("find eth0 of %s: %w", m.Name, err)
	}
	from := link.Attrs().HardwareAddr
	return from, m.announce("eth0", from, vip)
}

// Announce broadcasts that node j has the VIP, whether it has or not.
func (l *Lab) Announce(j int, vip netip.Addr) error {
	return (&HandMade{lab: l, vip: vip}).Announce(j)
}
