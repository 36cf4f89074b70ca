package tunnel

import (
	"cmp"
	"errors"
	"fmt"
	"hash/fnv"
	"iter"
	"math/bits"
	"net/netip"
	"slices"
)

// Validate says whether the mask is one contiguous field with room for a VIP.
func (m Marks) Validate() error {
	if m.Mask == 0 {
		return errors.New("--mark-mask 0: give a contiguous field of at least 2 bits, such as 0x1f00")
	}
	if field := m.Mask >> bits.TrailingZeros32(m.Mask); field&(field+1) != 0 || field < 3 {
		return fmt.Errorf("--mark-mask %#x is not one contiguous field of at least 2 bits, such as 0x1f00", m.Mask)
	}
	return nil
}

// Down is the slot for replies.
func (m Marks) Down() int { return int(m.Mask >> bits.TrailingZeros32(m.Mask)) }

// Value is the mark of a slot.
func (m Marks) Value(slot int) uint32 { return uint32(slot) << bits.TrailingZeros32(m.Mask) }

// Slots gives every VIP a slot from 1 to Down-1. A VIP's slot comes from its
// address, so that all hosts and every restart choose the same one, and gives way
// only where two addresses fall on one slot: the lower address keeps it.
func (m Marks) Slots(vips []netip.Addr) (map[netip.Addr]int, error) {
	room := m.Down() - 1
	vips = slices.Compact(slices.SortedFunc(slices.Values(vips), netip.Addr.Compare))
	if len(vips) > room {
		return nil, fmt.Errorf("%d VIPs do not fit --mark-mask %#x, which has room for %d: widen it", len(vips), m.Mask, room)
	}
	slots, taken := make(map[netip.Addr]int, len(vips)), make(map[int]bool, len(vips))
	for _, v := range vips {
		h := fnv.New32a()
		h.Write(v.AsSlice())
		slot := int(h.Sum32()%uint32(room)) + 1
		for taken[slot] {
			slot = slot%room + 1
		}
		slots[v], taken[slot] = slot, true
	}
	return slots, nil
}

// Remote pairs a VIP with the address nodes send its tunnel packets to: the VIP
// itself, or the inside address that moves with it.
type Remote struct{ VIP, Inside netip.Addr }

// Up is the plan of a node's agent: a table per VIP whose default route leads into
// the tunnel. The outer packet inherits the mark; throw keeps it out of its own
// tunnel.
func (c Config) Up(local netip.Addr, remotes []Remote) (Plan, error) {
	vips := make([]netip.Addr, 0, len(remotes))
	for _, r := range remotes {
		vips = append(vips, r.VIP)
	}
	slots, err := c.Marks.Slots(vips)
	if err != nil {
		return Plan{}, err
	}
	p := Plan{Local: local, FirstTable: c.TableBase + 1, LastTable: c.TableBase + c.Marks.Down() - 1}
	for _, r := range remotes {
		table := c.TableBase + slots[r.VIP]
		any4 := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if r.VIP.Is6() {
			any4 = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
		p.Rules = append(p.Rules, c.rule(slots[r.VIP]))
		p.Routes = append(p.Routes,
			Route{Table: table, Dst: any4, Remote: r.Inside},
			Route{Table: table, Dst: netip.PrefixFrom(r.Inside, r.Inside.BitLen())})
	}
	p.sort()
	return p, nil
}

// Downward is the plan of a gateway: one table with a route to each pod, through
// the tunnel to its node. In the order of their addresses they
// need not be sorted; nil is no pods.
func (c Config) Downward(local netip.Addr, nodeOf iter.Seq2[netip.Addr, netip.Addr]) Plan {
	table := c.TableBase + c.Marks.Down()
	p := Plan{Local: local, FirstTable: table, LastTable: table, Rules: []Rule{c.rule(c.Marks.Down())}}
	if nodeOf == nil {
		return p
	}
	pods := 0
	for range nodeOf {
		pods++
	}
	p.Routes = make([]Route, 0, pods)
	for pod, node := range nodeOf {
		p.Routes = append(p.Routes, Route{
			Table: table, Dst: netip.PrefixFrom(pod, pod.BitLen()), Remote: node,
		})
	}
	p.sort()
	return p
}

func (c Config) rule(slot int) Rule {
	return Rule{Value: c.Marks.Value(slot), Mask: c.Marks.Mask, Table: c.TableBase + slot, Priority: c.RulePriority}
}

func (p *Plan) sort() {
	slices.SortFunc(p.Rules, func(a, b Rule) int { return cmp.Compare(a.Table, b.Table) })
	slices.SortFunc(p.Routes, func(a, b Route) int {
		return cmp.Or(cmp.Compare(a.Table, b.Table), a.Dst.Addr().Compare(b.Dst.Addr()), cmp.Compare(a.Dst.Bits(), b.Dst.Bits()))
	})
}
