package gateway

import (
	"fmt"
	"net/netip"
	"slices"
	"sort"
	"strings"
)

// reserved are the ranges that no route ever takes, sorted, none inside another.
type reserved []reservedRange

type reservedRange struct {
	netip.Prefix
	what string
}

var alwaysReserved = []reservedRange{
	{netip.MustParsePrefix("127.0.0.0/8"), "the loopback range"},      // RFC 1122, 3.2.1.3
	{netip.MustParsePrefix("169.254.0.0/16"), "the link-local range"}, // RFC 3927
	{netip.MustParsePrefix("224.0.0.0/4"), "the multicast range"},     // RFC 5771
	{netip.MustParsePrefix("::1/128"), "the loopback address"},        // RFC 4291
	{netip.MustParsePrefix("fe80::/10"), "the link-local range"},
	{netip.MustParsePrefix("ff00::/8"), "the multicast range"},
}

func reservedRanges(nodes map[string]*Node, vips, known []netip.Addr, internal []netip.Prefix) reserved {
	all := slices.Clone(alwaysReserved)
	single := func(a netip.Addr, what string) {
		all = append(all, reservedRange{netip.PrefixFrom(a, a.BitLen()), what})
	}
	for _, n := range nodes {
		for _, a := range n.Addrs {
			single(a, "an address of Node "+n.Name)
		}
		for _, p := range n.PodCIDRs {
			all = append(all, reservedRange{p.Masked(), "the pod range of Node " + n.Name})
		}
	}
	for _, a := range slices.Concat(vips, known) {
		single(a, "a VIP")
	}
	for _, p := range internal {
		all = append(all, reservedRange{p.Masked(), "a range of the cluster"})
	}
	slices.SortFunc(all, func(a, b reservedRange) int {
		if c := comparePrefix(a.Prefix, b.Prefix); c != 0 {
			return c
		}
		return strings.Compare(a.what, b.what)
	})
	return outermost(all, func(r reservedRange) netip.Prefix { return r.Prefix })
}

// covers says whether all of inner lies in outer.
func covers(outer, inner netip.Prefix) bool {
	return outer.Bits() <= inner.Bits() && outer.Contains(inner.Addr())
}

// around is the range that addr lies in.
func (r reserved) around(addr netip.Addr) (reservedRange, bool) {
	i := sort.Search(len(r), func(i int) bool { return addr.Less(r[i].Addr()) })
	if i > 0 && r[i-1].Contains(addr) {
		return r[i-1], true
	}
	return reservedRange{}, false
}

// clear takes the reserved ranges out of destination i of the route; false when
// nothing of it is left. Pods are those outside every range.
func (r reserved) clear(route *Route, i int, d Destination, pods []claim, found *problems) (Destination, bool) {
	problem := func(reason Reason, format string, args ...any) {
		found.add(routeObject(route.Name), fmt.Sprintf("spec.destinations[%d].cidr", i), reason, format, args...)
	}
	if d.CIDR.Addr().Is4() != route.VIP.Is4() {
		problem(Invalid, "%s is not of the VIP's address family: the route does not take it; remove it", d.CIDR)
		return d, false
	}
	if in, ok := r.around(d.CIDR.Addr()); ok && covers(in.Prefix, d.CIDR) {
		problem(Misconfigured, "%s lies in %s (%s), which no route may take: remove it", d.CIDR, in.what, in.Prefix)
		return d, false
	}
	d.Except = tidy(d.Except)
	first := sort.Search(len(r), func(i int) bool { return !r[i].Addr().Less(d.CIDR.Addr()) })
	var added []netip.Prefix
	for _, in := range r[first:] {
		if !d.CIDR.Contains(in.Addr()) {
			break
		}
		added = append(added, in.Prefix)
	}
	if len(added) > 0 {
		d.Except = tidy(append(added, d.Except...))
	}
	if exhausted(d.CIDR, d.Except) {
		problem(Misconfigured, "nothing is left of %s without its exceptions and the cluster's own addresses: remove it, or shorten except", d.CIDR)
		return d, false
	}
	if pod := firstInside(d, pods); pod != nil {
		problem(Misconfigured, "%s contains %s of Pod %s/%s, which is in no node's pod range: packets between pods would take this route; add the pod network to except",
			d.CIDR, pod.addr, pod.pod.Namespace, pod.pod.Name)
	}
	return d, true
}

// tidy sorts ranges and drops those inside others.
func tidy(ps []netip.Prefix) []netip.Prefix {
	done := true
	for i := 1; i < len(ps); i++ {
		done = done && ps[i-1].Addr().Less(ps[i].Addr()) && !covers(ps[i-1], ps[i])
	}
	if done {
		return ps
	}
	return outermost(slices.SortedFunc(slices.Values(ps), comparePrefix), func(p netip.Prefix) netip.Prefix { return p })
}

// outermost drops, in place, the sorted ranges that lie inside others.
func outermost[T any](sorted []T, prefix func(T) netip.Prefix) []T {
	kept := sorted[:0]
	for _, r := range sorted {
		if n := len(kept); n == 0 || !covers(prefix(kept[n-1]), prefix(r)) {
			kept = append(kept, r)
		}
	}
	return kept
}

// exhausted says whether tidy exceptions leave nothing of the range.
func exhausted(whole netip.Prefix, except []netip.Prefix) bool {
	next := whole.Addr()
	for _, e := range except {
		if covers(e, whole) {
			return true
		}
		if !whole.Contains(e.Addr()) {
			continue
		}
		if e.Addr() != next {
			return false
		}
		if next = lastAddr(e).Next(); !whole.Contains(next) {
			return true
		}
	}
	return false
}

func lastAddr(p netip.Prefix) netip.Addr {
	bytes := p.Addr().AsSlice()
	for bit := p.Bits(); bit < 8*len(bytes); bit++ {
		bytes[bit/8] |= 0x80 >> (bit % 8)
	}
	addr, _ := netip.AddrFromSlice(bytes)
	return addr
}

// outside are the claims, sorted by address, that lie in none of the ranges.
func outside(claims []claim, own reserved) []claim {
	var out []claim
	for _, c := range claims {
		if _, in := own.around(c.addr); !in {
			out = append(out, c)
		}
	}
	return out
}

// firstInside finds the lowest claim that the destination takes, leaping over each
// exception: thousands of pods may lie in one.
func firstInside(d Destination, claims []claim) *claim {
	i := sort.Search(len(claims), func(i int) bool { return !claims[i].addr.Less(d.CIDR.Addr()) })
	for i < len(claims) && d.CIDR.Contains(claims[i].addr) {
		e := sort.Search(len(d.Except), func(e int) bool { return claims[i].addr.Less(d.Except[e].Addr()) })
		if e == 0 || !d.Except[e-1].Contains(claims[i].addr) {
			return &claims[i]
		}
		rest := claims[i:]
		i += sort.Search(len(rest), func(j int) bool { return !d.Except[e-1].Contains(rest[j].addr) })
	}
	return nil
}
