package iptables

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/sallyport/sallyport/netfilter"
)

var (
	iface = regexp.MustCompile(`^[^\s"'\\/+]{1,15}$`) // a final + would be a wildcard
	word  = regexp.MustCompile(`^[A-Za-z0-9_.:/-]{1,100}$`)
)

// match renders a Match as alternatives, one per protocol; none when nothing can
// match.
func (r *renderer) match(m netfilter.Match) ([]string, error) {
	var a args
	for _, i := range []struct{ flag, is, not string }{{"-i", m.In, m.NotIn}, {"-o", m.Out, m.NotOut}} {
		for _, name := range []string{i.is, i.not} {
			if name != "" && !iface.MatchString(name) {
				return nil, fmt.Errorf("interface name %q: iptables cannot match it", name)
			}
		}
		switch {
		case i.is != "" && i.is == i.not:
			return nil, nil
		case i.is != "": // iptables takes the option once, and this one says more
			a.add(i.flag, i.is)
		case i.not != "":
			a.add("!", i.flag, i.not)
		}
	}
	for _, e := range []struct {
		flag string
		addr netip.Addr
	}{{"-s", m.Src}, {"-d", m.Dst}} {
		if !e.addr.IsValid() {
			continue
		}
		if e.addr.Is6() != r.in.IPv6 {
			return nil, fmt.Errorf("address %s is of the other family", e.addr)
		}
		a.add(e.flag, netip.PrefixFrom(e.addr, e.addr.BitLen()).String())
	}
	if m.SrcNet.IsValid() {
		switch {
		case m.SrcNet.Addr().Is6() != r.in.IPv6:
			return nil, fmt.Errorf("range %s is of the other family", m.SrcNet)
		case m.Src.IsValid():
			return nil, fmt.Errorf("a source is matched once: by address %s or by range %s", m.Src, m.SrcNet)
		case m.SrcNet.Bits() > 0:
			a.add("-s", m.SrcNet.Masked().String())
		}
	}
	var rest args
	if m.SrcPorts != (netfilter.Ports{}) {
		rest.add("--sport", portRange(m.SrcPorts))
	}
	if m.DstPort != 0 {
		rest.add("--dport", strconv.Itoa(int(m.DstPort)))
	}
	var tail args
	if m.SrcSet != "" {
		tail.add("-m set --match-set", r.setNames[m.SrcSet], "src")
	}
	if m.NotSrcSet != "" {
		tail.add("-m set ! --match-set", r.setNames[m.NotSrcSet], "src")
	}
	if m.DstSet != "" {
		tail.add("-m set --match-set", r.setNames[m.DstSet], "dst")
	}
	if m.Unselected != "" {
		tail.add("-m set ! --match-set", r.classifiers[m.Unselected].all, "src")
	}
	if m.DstLocal {
		tail.add("-m addrtype --dst-type LOCAL")
	}
	switch m.State {
	case "":
	case netfilter.New, netfilter.Invalid, netfilter.Established:
		tail.add("-m conntrack --ctstate", strings.ToUpper(string(m.State)))
	default:
		return nil, fmt.Errorf("state %q is unknown", m.State)
	}
	switch m.Direction {
	case "":
	case netfilter.Original, netfilter.Reply:
		// A match of its own: together with a state, xt_conntrack.c passes a packet
		// without connection whatever its direction.
		tail.add("-m conntrack --ctdir", strings.ToUpper(string(m.Direction)))
	default:
		return nil, fmt.Errorf("direction %q is unknown", m.Direction)
	}
	for _, k := range []struct {
		name, not string
		m         *netfilter.Masked
	}{{"mark", "", m.Mark}, {"connmark", "", m.ConnMark}, {"mark", "! ", m.NotMark}, {"connmark", "! ", m.NotConnMark}} {
		if k.m != nil {
			tail.add("-m", k.name, k.not+"--mark", masked(*k.m))
		}
	}
	if len(m.Protocol) == 0 {
		return []string{join(a, tail)}, nil
	}
	var all []string
	for _, p := range slices.Compact(slices.Sorted(slices.Values(m.Protocol))) {
		name, known := protocols[p]
		if !known {
			return nil, fmt.Errorf("protocol %q is unknown", p)
		}
		own := slices.Concat(a, args{"-p", name})
		if len(rest) > 0 {
			if !slices.Contains(ported, name) {
				return nil, fmt.Errorf("protocol %q has no ports", p)
			}
			own = slices.Concat(own, args{"-m", name}, rest)
		}
		all = append(all, join(own, tail))
	}
	return all, nil
}

var (
	protocols = map[string]string{"tcp": "tcp", "udp": "udp", "sctp": "sctp", "icmp": "icmp", "icmpv6": "ipv6-icmp"}
	ported    = []string{"tcp", "udp", "sctp"}
)

// args are the arguments of a rule.
type args []string

func (a *args) add(s ...string) { *a = append(*a, s...) }

func join(parts ...args) string { return strings.Join(slices.Concat(parts...), " ") }

func masked(m netfilter.Masked) string { return fmt.Sprintf("%#x/%#x", m.Value, m.Mask) }

func portRange(p netfilter.Ports) string {
	if p.First == p.Last {
		return strconv.Itoa(int(p.First))
	}
	return fmt.Sprintf("%d:%d", p.First, p.Last)
}
