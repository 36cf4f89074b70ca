package snat

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	nf "github.com/sallyport/sallyport/netfilter"
)

// pools are the ranges of source ports that translations use, of which a connection
// takes the one on its own port's side of the NodePorts; none: those of the kernel.
func (c Config) pools() []nf.Ports {
	if c.NodePorts == (nf.Ports{}) {
		return nil
	}
	var pools []nf.Ports
	if c.NodePorts.First > 1024 {
		pools = append(pools, nf.Ports{First: 1024, Last: c.NodePorts.First - 1})
	}
	if c.NodePorts.Last < 65535 {
		pools = append(pools, nf.Ports{First: max(1024, c.NodePorts.Last+1), Last: 65535})
	}
	return pools
}

// Destination is what a source port is taken towards: connections of one VIP share
// a port unless their destinations are equal.
type Destination struct {
	Addr     netip.Addr
	Port     uint16
	Protocol uint8 // TCP, UDP or SCTP; others have no ports
}

// String writes it as ADDRESS:PORT/PROTOCOL.
func (d Destination) String() string {
	name, known := map[uint8]string{6: "tcp", 17: "udp", 132: "sctp"}[d.Protocol]
	if !known {
		name = fmt.Sprint(d.Protocol)
	}
	return netip.AddrPortFrom(d.Addr, d.Port).String() + "/" + name
}

// PortUse is how many of a VIP's source ports are taken towards one destination, of
// the range in which the largest part is.
type PortUse struct {
	Destination
	Range        nf.Ports
	Used, Usable int
}

// Share that is taken, 0 to 1.
func (u PortUse) Share() float64 { return float64(u.Used) / float64(u.Usable) }

// PortCount counts the source ports that translated connections use.
type PortCount struct {
	pools []nf.Ports
	used  map[taken]int
}

type taken struct {
	vip  netip.Addr
	to   Destination
	pool int
}

// NewPortCount has counted nothing yet.
func NewPortCount(c Config) *PortCount {
	pools := c.pools()
	if len(pools) == 0 {
		// What the kernel takes for a port of its own (net/netfilter/nf_nat_core.c).
		pools = []nf.Ports{{First: 1024, Last: 65535}}
	}
	return &PortCount{pools: pools, used: map[taken]int{}}
}

// Add counts one connection of the VIP that has the source port.
func (c *PortCount) Add(vip netip.Addr, to Destination, port uint16) {
	switch to.Protocol {
	case 6, 17, 132:
	default:
		return
	}
	for i, p := range c.pools {
		if p.First <= port && port <= p.Last {
			c.used[taken{vip, to, i}]++
			return
		}
	}
}

// Worst are the n destinations of the VIP that have the largest share of a range
// taken, the worst first.
func (c *PortCount) Worst(vip netip.Addr, n int) []PortUse {
	towards := map[Destination]bool{}
	for t := range c.used {
		if t.vip == vip {
			towards[t.to] = true
		}
	}
	uses := make([]PortUse, 0, len(towards))
	for to := range towards {
		u, _ := c.Towards(vip, to)
		uses = append(uses, u)
	}
	slices.SortFunc(uses, PortUse.Compare)
	return uses[:min(n, len(uses))]
}

// Towards is the use of the VIP's ports for one destination; false: none is in use.
func (c *PortCount) Towards(vip netip.Addr, to Destination) (use PortUse, some bool) {
	for i, p := range c.pools {
		used := c.used[taken{vip, to, i}]
		if used == 0 {
			continue
		}
		u := PortUse{Destination: to, Range: p, Used: used, Usable: int(p.Last) - int(p.First) + 1}
		if !some || u.Compare(use) < 0 {
			use, some = u, true
		}
	}
	return use, some
}

// Compare has the larger share first.
func (u PortUse) Compare(v PortUse) int {
	return cmp.Or(cmp.Compare(v.Share(), u.Share()), cmp.Compare(v.Used, u.Used),
		strings.Compare(u.String(), v.String()), cmp.Compare(u.Range.First, v.Range.First))
}
