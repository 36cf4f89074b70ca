package iptables

import (
	"fmt"
	"maps"
	"math/bits"
	"slices"

	"github.com/sallyport/sallyport/netfilter"
)

// fanOut is the number of values a packet is compared with one after the other
// before they are divided by their bits.
const fanOut = 8

// tally renders a CountConnMark: a tree over the bits of the mark, so that a packet
// of one route of a thousand meets some tens of rules.
func (r *renderer) tally(a netfilter.CountConnMark) string {
	for i, t := range r.tallies {
		if t.Mask == a.Mask && maps.Equal(t.Names, a.Names) {
			return tallyName(r.in.Name, i, 0, 0)
		}
	}
	nth := len(r.tallies)
	r.tallies = append(r.tallies, a)
	var values []uint32
	for v := range a.Names {
		if v&^a.Mask == 0 { // no masked mark has another
			values = append(values, v)
		}
	}
	slices.Sort(values)
	return r.branch(a, nth, values, 0, 0)
}

func tallyName(table string, nth int, value, mask uint32) string {
	if mask == 0 {
		return chainName(table, fmt.Sprintf("tally/%d", nth), true)
	}
	return chainName(table, fmt.Sprintf("t%d/%x/%x", nth, value, mask), true)
}

// branch makes the chain for the values that agree with value under mask.
func (r *renderer) branch(a netfilter.CountConnMark, nth int, values []uint32, value, mask uint32) string {
	name := tallyName(r.in.Name, nth, value, mask)
	r.chains[name] = nil
	left := a.Mask &^ mask
	if len(values) <= fanOut || left == 0 {
		for _, v := range values {
			spec := fmt.Sprintf("-m connmark --mark %#x/%#x -j RETURN", v, a.Mask)
			r.chains[name] = append(r.chains[name], rule{spec: spec, count: a.Names[v]})
		}
		return name
	}
	for range 3 { // eight ways
		if left != 0 {
			top := uint32(1) << (31 - bits.LeadingZeros32(left))
			mask, left = mask|top, left&^top
		}
	}
	for len(values) > 0 {
		prefix := values[0] & mask
		n := 0
		for n < len(values) && values[n]&mask == prefix {
			n++
		}
		to := r.branch(a, nth, values[:n], prefix, mask)
		r.chains[name] = append(r.chains[name], rule{spec: fmt.Sprintf("-m connmark --mark %#x/%#x -g %s", prefix, mask, to), to: to})
		values = values[n:]
	}
	return name
}
