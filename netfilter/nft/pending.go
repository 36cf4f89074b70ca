package nft

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/sallyport/sallyport/netfilter"
)

// Pending is what keeps the kernel's table from being equal to t now, of the elements
// only those that concern the addresses: other sources come and go all the time.
func (a *Applier) Pending(_ context.Context, t netfilter.Table, about []netip.Addr) ([]netfilter.Pending, error) {
	f := ipv4
	if t.IPv6 {
		f = ipv6
	}
	want, err := compile(t)
	if err != nil {
		return nil, err
	}
	have, _, err := read(f, t.Name)
	if err != nil {
		return nil, err
	}
	if !have.exists {
		return []netfilter.Pending{{Object: fmt.Sprintf("table %s %s", f, t.Name), Text: "is missing"}}, nil
	}
	want.number(have)
	var out []netfilter.Pending
	add := func(set bool, kind, name, format string, args ...any) {
		out = append(out, netfilter.Pending{Set: set, Object: fmt.Sprintf("%s %s %s %s", kind, f, t.Name, name), Text: fmt.Sprintf(format, args...)})
	}
	if have.flags != 0 {
		add(false, "table", "", "is dormant, or owned by another process")
	}
	for _, c := range want.chains {
		shape, there := have.chains[c.name]
		switch {
		case !there:
			add(false, "chain", c.name, "is missing")
			continue
		case shape != c.shape:
			add(false, "chain", c.name, "is at another hook or priority")
		}
		for _, l := range c.lines {
			if !slices.Contains(have.rules[c.name], l.comment) {
				add(false, "chain", c.name, "rule %q is missing", l.text)
			}
		}
		if len(have.rules[c.name]) > len(c.lines) {
			add(false, "chain", c.name, "has %d rules that are not ours", len(have.rules[c.name])-len(c.lines))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(want.sets)) {
		shape, there := have.sets[name]
		set := want.sets[name]
		switch {
		case !there:
			add(true, "set", name, "is missing")
			continue
		case !shape.same(set.kind.shape(f)):
			add(true, "set", name, "is of another type")
		}
		concerns := want.concerns(about, have.elements)
		_, missing := set.elements.differ(have.elements[name])
		for _, e := range missing {
			if concerns(set.kind, e.key) {
				add(true, "set", name, "element %s is missing", set.kind.text(f, e.key))
			}
		}
	}
	slices.SortFunc(out, func(a, b netfilter.Pending) int { return strings.Compare(a.String(), b.String()) })
	return out, nil
}

// concerns tells the elements of the addresses, and of the classes that they have.
func (w *wanted) concerns(about []netip.Addr, have map[string]elements) func(kind, key) bool {
	addrs, classes := map[string]bool{}, map[uint32]bool{}
	for _, a := range about {
		addrs[string(a.AsSlice())] = true
	}
	for _, c := range w.classifiers {
		for _, sources := range []elements{w.sets[sourcesMap(c.name)].elements, have[sourcesMap(c.name)]} {
			for _, e := range sources {
				if addrs[e.first] {
					classes[hostValue(e.data)] = true
				}
			}
		}
	}
	return func(kind kind, k key) bool {
		switch {
		case kind == counterOfMark:
			return true
		case kind.isInterval():
			return classes[be32(k.first[:4])]
		}
		return addrs[k.first]
	}
}
