package steer

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/sallyport/sallyport/gateway"
	nf "github.com/sallyport/sallyport/netfilter"
)

// tcp is the number of the only protocol whose connections begin with a SYN.
const tcp = 6

// Retries are the connections that a route takes, as a look-up that holds the whole
// answer in two steps: the class of the source, then the longest prefix of the
// destination within that class.
type Retries struct {
	Classes      map[netip.Addr]int
	Destinations map[Destination][]nf.Ports // sorted and disjoint, never none
}

// Destination of a class's connections.
type Destination struct {
	Class  int
	Prefix netip.Prefix
}

// NewRetries are the plan's. No prefix of a class contains another of it.
func NewRetries(plan gateway.Plan) Retries {
	c := gateway.Classifier(classifier, plan, func(gateway.PlannedRoute) uint32 { return 1 })
	r := Retries{Classes: make(map[netip.Addr]int, len(c.Sources)), Destinations: map[Destination][]nf.Ports{}}
	for _, s := range c.Sources {
		r.Classes[s.Addr] = s.Class
	}
	for class, targets := range c.Classes {
		for _, box := range nf.Flatten(targets) {
			if box.FirstProtocol > tcp || box.LastProtocol < tcp {
				continue
			}
			for _, p := range prefixesOf(box.First, box.Last) {
				at := Destination{Class: class, Prefix: p}
				r.Destinations[at] = append(r.Destinations[at], box.Ports)
			}
		}
	}
	for _, ports := range r.Destinations {
		slices.SortFunc(ports, func(a, b nf.Ports) int { return cmp.Compare(a.First, b.First) })
	}
	return r
}

// prefixesOf divides a range of addresses into the fewest prefixes.
func prefixesOf(first, last netip.Addr) []netip.Prefix {
	var out []netip.Prefix
	for at := first; at.IsValid() && !last.Less(at); {
		p := netip.PrefixFrom(at, at.BitLen())
		for p.Bits() > 0 {
			wider := netip.PrefixFrom(at, p.Bits()-1)
			if wider.Masked().Addr() != at || last.Less(endOf(wider)) {
				break
			}
			p = wider
		}
		out = append(out, p)
		at = endOf(p).Next()
	}
	return out
}

// endOf is the highest address of a prefix.
func endOf(p netip.Prefix) netip.Addr {
	raw := p.Masked().Addr().AsSlice()
	for bit := p.Bits(); bit < 8*len(raw); bit++ {
		raw[bit/8] |= 0x80 >> (bit % 8)
	}
	end, _ := netip.AddrFromSlice(raw)
	return end
}
