// Package allowlist is about the addresses that a firewall outside of the cluster must
// admit: the VIPs of the routes, or the addresses of the nodes. It decides what a list
// says in each format, what of another's word is believed, and what a firewall's set
// lacks. It is pure.
package allowlist

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// Kind is what a list has addresses of.
type Kind string

// The kinds.
const (
	Routes Kind = "routes" // by which VIP each route's pods leave
	Nodes  Kind = "nodes"
)

// List as one source gave it.
type List struct {
	Kind Kind `json:"kind"`
	// Doubt says why the source may not know what is so now, "" when it does.
	Doubt string `json:"doubt,omitempty"`
	// Empty says that there is nothing to admit, and that this is no mistake.
	Empty   bool    `json:"empty,omitempty"`
	Entries []Entry `json:"entries"`
}

// Entry is one route or node.
type Entry struct {
	Name      string       `json:"name"`
	Addresses []netip.Addr `json:"addresses"`
}

// Address to be admitted, and for whom.
type Address struct {
	netip.Addr
	Names []string // of entries, sorted
}

// Addresses are all of the list's, each once, sorted.
func (l List) Addresses() []Address {
	names := map[netip.Addr][]string{}
	for _, e := range l.Entries {
		for _, a := range e.Addresses {
			names[a] = append(names[a], e.Name)
		}
	}
	all := make([]Address, 0, len(names))
	for _, a := range slices.SortedFunc(maps.Keys(names), netip.Addr.Compare) {
		slices.Sort(names[a])
		all = append(all, Address{a, slices.Compact(names[a])})
	}
	return all
}

// Only is the list with the entries of these names, all of them when none are given.
// The error names those that are missing.
func (l List) Only(names []string) (List, error) {
	if len(names) == 0 {
		return l, nil
	}
	all := l.Entries
	l.Entries = nil
	missing := map[string]bool{}
	for _, n := range names {
		missing[n] = true
	}
	for _, e := range all {
		if slices.Contains(names, e.Name) {
			l.Entries = append(l.Entries, e)
			delete(missing, e.Name)
		}
	}
	if len(missing) == 0 {
		return l, nil
	}
	return l, fmt.Errorf("the list of %s has no %s: correct the name, or ask for it no longer", l.Kind, strings.Join(slices.Sorted(maps.Keys(missing)), ", "))
}

// Within is the list with the addresses inside of the ranges, all of them when none are
// given. The error names those outside.
func (l List) Within(ranges []netip.Prefix) (List, error) {
	if len(ranges) == 0 {
		return l, nil
	}
	var outside []string
	all := l.Entries
	l.Entries = nil
	for _, e := range all {
		inside := Entry{Name: e.Name}
		for _, a := range e.Addresses {
			if slices.ContainsFunc(ranges, func(p netip.Prefix) bool { return p.Contains(a) }) {
				inside.Addresses = append(inside.Addresses, a)
			} else {
				outside = append(outside, fmt.Sprintf("%s of %s", a, e.Name))
			}
		}
		l.Entries = append(l.Entries, inside)
	}
	if len(outside) == 0 {
		return l, nil
	}
	return l, fmt.Errorf("not admitted, as they lie outside of the ranges that may be: %s: if they are right, widen --within", strings.Join(outside, ", "))
}

// Nothing says why the list has no address though that is not meant; nil if it has one,
// or means it.
func (l List) Nothing() error {
	if l.Empty || slices.ContainsFunc(l.Entries, func(e Entry) bool { return len(e.Addresses) > 0 }) {
		return nil
	}
	return fmt.Errorf("the list of %s has no address, and nothing says that this is meant", l.Kind)
}

// Believe gives the list to go by: the one that came, or with an error the one before.
func Believe(before *List, came List) (*List, error) {
	var why error
	switch {
	case before != nil && before.Kind != came.Kind:
		why = fmt.Errorf("it is a list of %s, not of %s", came.Kind, before.Kind)
	case before != nil && came.Doubt != "":
		why = fmt.Errorf("it may be old: %s", came.Doubt)
	default:
		why = came.Nothing()
	}
	if why != nil {
		return before, why
	}
	return &came, nil
}
