package netfilter

import (
	"cmp"
	"net/netip"
	"slices"
)

// Box is a block of (address, protocol, port) all of which has one value.
type Box struct {
	First, Last                 netip.Addr
	FirstProtocol, LastProtocol uint8
	Ports                       Ports
	Value                       uint32
}

// EveryPort is the range of all ports.
var EveryPort = Ports{First: 0, Last: 65535}

// Flatten turns targets, which may nest, overlap and have exceptions, into disjoint
// boxes that give every packet the value of the one target that wins it, and none
// where no target does. Neighbouring equal boxes are one. The boxes are sorted.
func Flatten(targets []Target) []Box {
	type edge struct {
		at    netip.Addr
		enter int // the target that begins here, -1 for none
	}
	order := byPrecedence(targets)
	var edges []edge
	cut := func(p netip.Prefix, enter int) {
		edges = append(edges, edge{p.Masked().Addr(), enter})
		if after := lastOf(p).Next(); after.IsValid() {
			edges = append(edges, edge{after, -1})
		}
	}
	for rank, t := range order {
		cut(t.CIDR, rank)
		for _, x := range t.Except {
			cut(x, -1)
		}
	}
	slices.SortFunc(edges, func(a, b edge) int { return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.enter, b.enter)) })

	var boxes []Box
	var open []Box // those of the address range just before
	var inside []int
	for i := 0; i < len(edges); {
		at := edges[i].at
		for ; i < len(edges) && edges[i].at == at; i++ {
			if edges[i].enter >= 0 {
				inside = append(inside, edges[i].enter)
			}
		}
		inside = slices.DeleteFunc(inside, func(rank int) bool { return !order[rank].CIDR.Contains(at) })
		slices.Sort(inside)
		last := lastOf(netip.PrefixFrom(at, 0))
		if i < len(edges) && edges[i].at.BitLen() == at.BitLen() {
			last = edges[i].at.Prev()
		}
		var here []Target
		for _, rank := range inside {
			if !excepted(order[rank], at) {
				here = append(here, order[rank])
			}
		}
		plane := planeOf(here)
		for j := range plane {
			plane[j].First, plane[j].Last = at, last
		}
		if continues(open, plane, at) {
			for j := range open {
				open[j].Last = last
			}
			continue
		}
		boxes, open = append(boxes, open...), plane
	}
	return append(boxes, open...)
}

// byPrecedence sorts: the longest prefix, then with ports, then as given.
func byPrecedence(targets []Target) []Target {
	order := slices.Clone(targets)
	slices.SortStableFunc(order, func(a, b Target) int {
		return cmp.Or(cmp.Compare(b.CIDR.Bits(), a.CIDR.Bits()), cmp.Compare(withoutPorts(a), withoutPorts(b)))
	})
	return order
}

func withoutPorts(t Target) int {
	if len(t.Ports) > 0 {
		return 0
	}
	return 1
}

func excepted(t Target, a netip.Addr) bool {
	return slices.ContainsFunc(t.Except, func(p netip.Prefix) bool { return p.Contains(a) })
}

// continues says whether the plane at the address goes on as the one before it.
func continues(before, plane []Box, at netip.Addr) bool {
	return len(before) > 0 && before[0].Last.Next() == at &&
		slices.EqualFunc(before, plane, func(a, b Box) bool {
			b.First, b.Last = a.First, a.Last
			return a == b
		})
}

// planeOf divides protocols and ports among targets that share an address, by
// precedence.
func planeOf(targets []Target) []Box {
	var protocols []int // where the treatment of protocols may change
	for _, t := range targets {
		for _, p := range t.Ports {
			protocols = append(protocols, int(p.Protocol), int(p.Protocol)+1)
		}
	}
	protocols = append(protocols, 0)
	slices.Sort(protocols)
	protocols = slices.Compact(protocols)
	var plane, row []Box
	for i, first := range protocols {
		last := 255
		if i+1 < len(protocols) {
			last = protocols[i+1] - 1
		}
		if first > 255 {
			break
		}
		next := rowOf(targets, uint8(first))
		for j := range next {
			next[j].FirstProtocol, next[j].LastProtocol = uint8(first), uint8(last)
		}
		same := len(row) > 0 && int(row[0].LastProtocol)+1 == first && slices.EqualFunc(row, next, func(a, b Box) bool {
			return a.Ports == b.Ports && a.Value == b.Value
		})
		if same {
			for j := range row {
				row[j].LastProtocol = uint8(last)
			}
			continue
		}
		plane, row = append(plane, row...), next
	}
	return append(plane, row...)
}

// rowOf divides the ports of one protocol.
func rowOf(targets []Target, protocol uint8) []Box {
	cuts := []int{0}
	for _, t := range targets {
		for _, p := range t.Ports {
			if p.Protocol == protocol {
				cuts = append(cuts, int(p.Ports.First), int(p.Ports.Last)+1)
			}
		}
	}
	slices.Sort(cuts)
	cuts = slices.Compact(cuts)
	var row []Box
	for i, first := range cuts {
		last := 65535
		if i+1 < len(cuts) {
			last = cuts[i+1] - 1
		}
		if first > 65535 {
			break
		}
		at := slices.IndexFunc(targets, func(t Target) bool { return hasPort(t, protocol, uint16(first)) })
		if at < 0 {
			continue
		}
		value := targets[at].Value
		if n := len(row); n > 0 && row[n-1].Value == value && int(row[n-1].Ports.Last)+1 == first {
			row[n-1].Ports.Last = uint16(last)
			continue
		}
		row = append(row, Box{Ports: Ports{First: uint16(first), Last: uint16(last)}, Value: value})
	}
	return row
}

func hasPort(t Target, protocol uint8, port uint16) bool {
	return len(t.Ports) == 0 || slices.ContainsFunc(t.Ports, func(p ProtocolPorts) bool {
		return p.Protocol == protocol && p.Ports.First <= port && port <= p.Ports.Last
	})
}

// lastOf is the highest address of a prefix.
func lastOf(p netip.Prefix) netip.Addr {
	raw := p.Addr().AsSlice()
	for i := range raw {
		switch left := p.Bits() - i*8; {
		case left <= 0:
			raw[i] = 0xff
		case left < 8:
			raw[i] |= 0xff >> left
		}
	}
	last, _ := netip.AddrFromSlice(raw)
	return last
}
