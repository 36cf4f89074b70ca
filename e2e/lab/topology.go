package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"
)

// Short names of the hosts that are neither node nor pod.
const (
	Switch      = "sw"
	Router      = "router"
	PartnerHost = "partner"
)

func (l *Lab) makeFolders() error {
	for _, d := range []string{l.Manifests.Dir, l.Manifests.scratch, l.logDir(), l.stateDir(), l.runDir()} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return fmt.Errorf("make the lab's folders: %w", err)
		}
	}
	return l.SetGossipKeys(NewKey())
}

// SetGossipKeys changes the key file of all gateways, at once, as a kubelet does.
func (l *Lab) SetGossipKeys(keys ...string) error {
	next := l.gossipKeyFile() + ".next"
	if err := os.WriteFile(next, []byte(strings.Join(keys, "")), 0o600); err != nil {
		return err
	}
	return os.Rename(next, l.gossipKeyFile())
}

func (l *Lab) build() error {
	if err := l.buildSwitch(); err != nil {
		return err
	}
	if err := l.Manifests.WriteNamespace("default", nil, nil); err != nil {
		return err
	}
	var g errgroup.Group
	g.Go(l.buildOutside)
	for j := 1; j <= l.Options.Nodes; j++ {
		g.Go(func() error {
			if err := l.buildNode(j); err != nil {
				return err
			}
			if err := l.Manifests.WriteNode(NodeName(j), PodCIDR(j), l.nodeAddrs(j)); err != nil {
				return err
			}
			for k := 1; k <= l.Options.PodsPerNode; k++ {
				if _, err := l.AddPod(PodSpec{Name: fmt.Sprintf("pod-%d-%d", j, k), Node: j}); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

func (l *Lab) nodeAddrs(j int) []netip.Addr {
	if l.Options.TwoNetworks {
		return []netip.Addr{host(insideNet, j), OutsideAddr(j)}
	}
	return []netip.Addr{OutsideAddr(j)}
}

// buildSwitch makes the segments. Their frames must not pass the switch's own
// iptables, or its conntrack would see every flow a second time.
func (l *Lab) buildSwitch() error {
	sw, err := l.newMachine(Switch, "ipv6/conf/all/disable_ipv6=1", "ipv6/conf/default/disable_ipv6=1")
	if err != nil {
		return err
	}
	if _, err := os.Stat("/proc/sys/net/bridge"); err == nil {
		if err := sw.Sysctls("bridge/bridge-nf-call-iptables=0", "bridge/bridge-nf-call-arptables=0"); err != nil {
			return err
		}
	}
	for i, name := range []string{"outside", "inside"} {
		if err := sw.bridge(name, mac(0xfe, 16+i)); err != nil {
			return err
		}
	}
	return l.switchRules()
}

// buildOutside makes the router and the partner behind it. Nothing there filters
// by reverse path: a packet that leaves a node with a pod's address is to arrive,
// and to be counted.
func (l *Lab) buildOutside() error {
	r, err := l.newMachine(Router, "ipv4/ip_forward=1", "ipv4/conf/all/rp_filter=0", "ipv4/conf/default/rp_filter=0")
	if err != nil {
		return err
	}
	p, err := l.newMachine(PartnerHost, "ipv4/conf/all/rp_filter=0", "ipv4/conf/default/rp_filter=0")
	if err != nil {
		return err
	}
	if err := l.plug("outside", Router, r, "eth0", mac(0xf1, 0)); err != nil {
		return err
	}
	if err := r.veth("eth1", mac(0xf1, 1), 0, p, "eth0", mac(0xf2, 0)); err != nil {
		return err
	}
	return errors.Join(
		r.up("eth0", netip.PrefixFrom(routerOutside, 24)),
		r.up("eth1", netip.PrefixFrom(routerPartner, 24)),
		p.up("eth0", netip.PrefixFrom(PartnerAddr, 24), netip.PrefixFrom(PublicAddr, 24)),
		p.route(netip.Prefix{}, routerPartner),
	)
}

func (l *Lab) buildNode(j int) error {
	rp := "=" + strconv.Itoa(max(l.Options.RPFilter, 0))
	n, err := l.newMachine(NodeName(j), "ipv4/ip_forward=1", "ipv4/conf/all/rp_filter=0", "ipv4/conf/default/rp_filter"+rp)
	if err != nil {
		return err
	}
	errs := []error{
		l.plug("outside", NodeName(j), n, "eth0", NodeMAC(j)),
		n.up("eth0", netip.PrefixFrom(OutsideAddr(j), 24)),
		n.route(netip.Prefix{}, routerOutside),
	}
	if l.Options.TwoNetworks {
		errs = append(errs,
			l.plug("inside", insidePort(j), n, "eth1", mac(j, 1)),
			n.up("eth1", netip.PrefixFrom(host(insideNet, j), 24)))
	}
	if l.Options.BareNodes {
		return errors.Join(errs...)
	}
	if err := n.bridge("cni0", mac(j, 2)); err != nil {
		return err
	}
	errs = append(errs, n.up("cni0", netip.PrefixFrom(host(PodCIDR(j), 1), 24)))
	for k := 1; k <= l.Options.Nodes; k++ {
		if k != j {
			errs = append(errs, n.route(PodCIDR(k), l.NodeIP(k)))
		}
	}
	if !l.Options.MasqueradeLate {
		errs = append(errs, l.Masquerade(j))
	}
	return errors.Join(errs...)
}

// AddHost makes a further host on the outside segment, with the default route to the
// router. It reaches every node, and is no node.
func (l *Lab) AddHost(short string, addr netip.Addr) error {
	if !outsideNet.Contains(addr) {
		return fmt.Errorf("add host %s: %s is not on the outside segment %s", short, addr, outsideNet)
	}
	m, err := l.newMachine(short)
	if err != nil {
		return err
	}
	return errors.Join(
		l.plug("outside", short, m, "eth0", mac(0xf3, int(addr.As4()[3]))),
		m.up("eth0", netip.PrefixFrom(addr, 24)),
		m.route(netip.Prefix{}, routerOutside),
	)
}

// Route gives a host of the lab a route.
func (l *Lab) Route(short string, dst netip.Prefix, via netip.Addr) error {
	m, err := l.machine(short)
	if err != nil {
		return err
	}
	return m.route(dst, via)
}

func insidePort(j int) string { return NodeName(j) + "-in" }

// plug connects a machine to a segment; the port carries the machine's name.
func (l *Lab) plug(segment, port string, m *machine, ifname string, hw net.HardwareAddr) error {
	sw, err := l.machine(Switch)
	if err != nil {
		return err
	}
	br, err := sw.nl.LinkByName(segment)
	if err != nil {
		return fmt.Errorf("find segment %s: %w", segment, err)
	}
	portMAC := append(net.HardwareAddr(nil), hw...)
	portMAC[2] = 0x5f
	return sw.veth(port, portMAC, br.Attrs().Index, m, ifname, hw)
}

func (m *machine) bridge(name string, hw net.HardwareAddr) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr, attrs.Flags = name, hw, net.FlagUp
	if err := m.nl.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
		return fmt.Errorf("add bridge %s in %s: %w", name, m.Name, err)
	}
	return nil
}

// veth joins two machines; a master other than 0 is the bridge the near end is in.
func (m *machine) veth(name string, hw net.HardwareAddr, master int, far *machine, farName string, farHW net.HardwareAddr) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr, attrs.Flags, attrs.MasterIndex = name, hw, net.FlagUp, master
	v := netlink.NewVeth(attrs)
	v.PeerName, v.PeerHardwareAddr, v.PeerNamespace = farName, farHW, netlink.NsFd(far.FD())
	if err := m.nl.LinkAdd(v); err != nil {
		return fmt.Errorf("add link %s in %s to %s in %s: %w", name, m.Name, farName, far.Name, err)
	}
	return nil
}

// up gives an interface its addresses and brings it up.
func (m *machine) up(ifname string, addrs ...netip.Prefix) error {
	link, err := m.nl.LinkByName(ifname)
	if err != nil {
		return fmt.Errorf("find %s in %s: %w", ifname, m.Name, err)
	}
	for _, a := range addrs {
		if err := m.nl.AddrAdd(link, &netlink.Addr{IPNet: addrNet(a.Addr(), a.Bits())}); err != nil {
			return fmt.Errorf("add %s on %s in %s: %w", a, ifname, m.Name, err)
		}
	}
	if err := m.nl.LinkSetUp(link); err != nil {
		return fmt.Errorf("bring up %s in %s: %w", ifname, m.Name, err)
	}
	return nil
}

// route adds a route; the zero Prefix is the default route.
func (m *machine) route(dst netip.Prefix, via netip.Addr) error {
	r := &netlink.Route{Gw: via.AsSlice()}
	if dst.IsValid() {
		r.Dst = addrNet(dst.Addr(), dst.Bits())
	}
	if err := m.nl.RouteReplace(r); err != nil {
		return fmt.Errorf("route %s via %s in %s: %w", dst, via, m.Name, err)
	}
	return nil
}

func (l *Lab) logDir() string        { return filepath.Join(l.Options.Dir, "logs") }
func (l *Lab) stateDir() string      { return filepath.Join(l.Options.Dir, "state") }
func (l *Lab) runDir() string        { return filepath.Join(l.Options.Dir, "run") }
func (l *Lab) gossipKeyFile() string { return filepath.Join(l.Options.Dir, "gossip.key") }
