package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// HandMade is the packet path of the design as a person would configure it, with
// no program running: the lab's own tests move its VIP to see that the lab tells
// the truth. Every node is a gateway.
type HandMade struct {
	lab  *Lab
	vip  netip.Addr
	pods []*Pod
}

const (
	handTables = `table ip hand {
	set pods {
		type ipv4_addr
		%[1]s
	}
	chain early {
		type filter hook prerouting priority raw
		iifname "hand0" ip saddr @pods ct zone set 7
		ip daddr %[3]s udp dport 4793 return
		iifname "eth0" ip daddr %[2]s ct zone set 7
	}
	chain steer {
		type filter hook prerouting priority mangle
		iifname "hand0" meta mark set mark and 0xffffdfff
		iifname != "hand0" ip saddr @pods ip daddr %[4]s meta mark set mark or 0x2000
	}
	chain clamp {
		type filter hook forward priority mangle
		oifname "hand0" tcp flags syn tcp option maxseg size set rt mtu
	}
	chain invalid {
		type filter hook forward priority 0
		iifname "hand0" ct state invalid drop
	}
	chain source {
		type nat hook postrouting priority 95
		oifname "hand0" snat to ip saddr
		oifname "eth0" ip saddr @pods ip daddr %[4]s snat to %[2]s
	}
	chain unmatched {
		type filter hook input priority 0
		ip daddr %[2]s meta l4proto tcp drop
	}
}
table arp hand {
	set held {
		type ipv4_addr
	}
	chain fence {
		type filter hook output priority 0
		arp saddr ip %[2]s arp saddr ip != @held drop
	}
}
`
	handLinks = `set -e
ip link add hand0 type vxlan external gpe dstport 4793
ip link set hand0 mtu 1464 up
ip addr add %[1]s/32 dev hand0 noprefixroute
echo 2 >/proc/sys/net/ipv4/conf/hand0/rp_filter
echo 1 >/proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal
ip rule add fwmark 0x2000/0x2000 lookup 4242 prio 100
ip route add table 4242 default encap ip id 51 dst %[2]s dev hand0
ip route add table 4242 throw %[2]s/32
ip rule add iif eth0 lookup 4243 prio 101
`
)

// MakeByHand configures every node for the pods named, to all of PartnerAddr, and
// lets node leader claim the first VIP.
func (l *Lab) MakeByHand(leader int, pods ...string) (*HandMade, error) {
	h := &HandMade{lab: l, vip: l.Options.VIPs[0]}
	var addrs []string
	for _, name := range pods {
		p, err := l.Pod(name)
		if err != nil {
			return nil, err
		}
		h.pods, addrs = append(h.pods, p), append(addrs, p.Addr.String())
	}
	selected := "" // nft knows no empty list
	if len(addrs) > 0 {
		selected = "elements = { " + strings.Join(addrs, ", ") + " }"
	}
	for j := 1; j <= l.Options.Nodes; j++ {
		m, err := l.machine(NodeName(j))
		if err != nil {
			return nil, err
		}
		script := fmt.Sprintf(handLinks, l.NodeIP(j), l.InsideOf(h.vip))
		for _, p := range h.pods {
			script += fmt.Sprintf("ip route add table 4243 %s encap ip id 51 dst %s dev hand0\n", p.Addr, l.NodeIP(p.Node))
		}
		_, err = m.Run("sh", "-c", script)
		err = errors.Join(err, m.nft(fmt.Sprintf(handTables, selected, h.vip, l.InsideOf(h.vip), PartnerAddr)))
		if err != nil {
			return nil, fmt.Errorf("make %s a gateway by hand: %w", NodeName(j), err)
		}
	}
	return h, h.Claim(leader)
}

// Claim opens node j's fence, gives it the VIP and announces it.
func (h *HandMade) Claim(j int) error {
	m, err := h.lab.machine(NodeName(j))
	if err != nil {
		return err
	}
	if err := errors.Join(m.nft(fmt.Sprintf("add element arp hand held { %s }\n", h.vip)), h.address(m, m.nl.AddrReplace)); err != nil {
		return err
	}
	return h.Announce(j)
}

// Release takes the VIP from node j and closes its fence.
func (h *HandMade) Release(j int) error {
	m, err := h.lab.machine(NodeName(j))
	if err != nil {
		return err
	}
	return errors.Join(h.address(m, m.nl.AddrDel), m.nft(fmt.Sprintf("delete element arp hand held { %s }\n", h.vip)))
}

// Announce sends gratuitous ARP for the VIP from node j, whether it holds it or not
// (its fence is for the kernel's own ARP; where there is a guard at egress, that stops it).
func (h *HandMade) Announce(j int) error {
	m, err := h.lab.machine(NodeName(j))
	if err != nil {
		return err
	}
	err = m.announce("eth0", mac(j, 0), h.vip)
	if h.lab.Options.TwoNetworks {
		err = errors.Join(err, m.announce("eth1", mac(j, 1), h.lab.InsideOf(h.vip)))
	}
	return err
}

func (m *machine) announce(ifname string, from net.HardwareAddr, addr netip.Addr) error {
	f, err := openFrames(m.NS, ifname, unix.ETH_P_ARP)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, op := range []uint16{arpRequest, arpReply} {
		if _, err := f.Write(gratuitous(op, from, addr).bytes()); err != nil {
			return fmt.Errorf("announce %s from %s: %w", addr, m.Name, err)
		}
	}
	return nil
}

func (h *HandMade) address(m *machine, change func(netlink.Link, *netlink.Addr) error) error {
	addrs := map[string]netip.Addr{"eth0": h.vip}
	if h.lab.Options.TwoNetworks {
		addrs["eth1"] = h.lab.InsideOf(h.vip)
	}
	for ifname, a := range addrs {
		link, err := m.nl.LinkByName(ifname)
		if err == nil {
			err = change(link, &netlink.Addr{IPNet: addrNet(a, 32), Flags: unix.IFA_F_NOPREFIXROUTE})
		}
		if err != nil {
			return fmt.Errorf("change %s on %s in %s: %w", a, ifname, m.Name, err)
		}
	}
	return nil
}

// Replicate gives node j the connection-tracking entry of a TCP connection from a
// pod's port to the partner's port, as the holder has it.
func (h *HandMade) Replicate(j int, from netip.AddrPort, toPort uint16) error {
	_, err := h.lab.Exec(NodeName(j), "conntrack", "-I", "-p", "tcp", "--orig-src", from.Addr().String(),
		"--orig-dst", PartnerAddr.String(), "--sport", strconv.Itoa(int(from.Port())), "--dport", strconv.Itoa(int(toPort)),
		"--state", "ESTABLISHED", "--timeout", "300", "--zone", "7", "-u", "ASSURED,SEEN_REPLY",
		"--src-nat", fmt.Sprintf("%s:%d", h.vip, from.Port()))
	return err
}
