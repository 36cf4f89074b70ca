package iptables

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/sallyport/sallyport/netfilter"
)

// finder is a Classifier as rules: one for each distinct target and range of ports,
// in an order that is the order of precedence of every class that has them.
type finder struct {
	name    string
	gate    string // what spares most packets the entries, "" for nothing
	all     string // set of all sources, "" where there are none
	entries []entry
}

// entry is one target for the sources of one set.
type entry struct {
	match string // without the target
	value uint32
}

// finder renders the classifier's sets and matches.
func (r *renderer) finder(c netfilter.Classifier) (*finder, error) {
	sources := make([][]netip.Addr, len(c.Classes))
	all := make([]netip.Addr, 0, len(c.Sources))
	var wrong []error
	for _, s := range c.Sources {
		if s.Addr.Is6() != r.in.IPv6 {
			wrong = append(wrong, fmt.Errorf("classifier %s: source %s is of the other family", c.Name, s.Addr))
			continue
		}
		sources[s.Class] = append(sources[s.Class], s.Addr)
		all = append(all, s.Addr)
	}
	f := &finder{name: c.Name}
	if len(c.Sources) > 0 || len(c.Others) == 0 {
		f.all = r.addSet(set{name: setName(r.in.Name, r.in.IPv6, c.Name+"/all", true), addrs: all})
	}
	if len(c.Others) == 0 {
		f.gate = "-m set --match-set " + f.all + " src"
	}

	// Targets of the same classes share a set of sources. Its name comes from those
	// targets: it has the same meaning whatever its contents, and changes of the
	// contents reach these targets and no others.
	type group struct {
		classes []int
		keys    []string
	}
	// A hash:net set takes no /0, and needs none of these.
	placed := slices.DeleteFunc(merge(c.Classes), func(p placement) bool { return nothingLeft(p.Target) })
	groups := map[string]*group{}
	seen := map[string]int{}
	for i := range placed {
		p := &placed[i]
		slices.Sort(p.classes)
		var id strings.Builder
		for _, class := range p.classes {
			id.WriteString(strconv.Itoa(class))
			id.WriteByte(',')
		}
		g := groups[id.String()]
		if g == nil {
			g = &group{classes: p.classes}
			groups[id.String()] = g
		}
		g.keys = append(g.keys, fmt.Sprintf("%s#%d", p.key, seen[p.key]))
		seen[p.key]++
		p.group = id.String()
	}
	names := map[string]string{}
	for _, p := range placed {
		if names[p.group] == "" {
			g := groups[p.group]
			var addrs []netip.Addr
			for _, class := range g.classes {
				addrs = append(addrs, sources[class]...)
			}
			slices.SortFunc(addrs, netip.Addr.Compare)
			slices.Sort(g.keys)
			id := digest(c.Name+"\x00"+strings.Join(g.keys, "\x00"), 5)
			names[p.group] = r.addSet(set{name: setName(r.in.Name, r.in.IPv6, "g/"+id, true), addrs: addrs})
		}
		entries, err := r.entries(p.Target, "-m set --match-set "+names[p.group]+" src")
		if err != nil {
			wrong = append(wrong, fmt.Errorf("classifier %s, %w", c.Name, err))
		}
		f.entries = append(f.entries, entries...)
	}
	from := ""
	if f.all != "" {
		from = "-m set ! --match-set " + f.all + " src"
	}
	for _, t := range slices.SortedStableFunc(slices.Values(c.Others), precedence) {
		if nothingLeft(t) {
			continue
		}
		entries, err := r.entries(t, from)
		if err != nil {
			wrong = append(wrong, fmt.Errorf("classifier %s, %w", c.Name, err))
		}
		f.entries = append(f.entries, entries...)
	}
	return f, errors.Join(wrong...)
}

func (r *renderer) entries(t netfilter.Target, from string) ([]entry, error) {
	if t.CIDR.Addr().Is6() != r.in.IPv6 {
		return nil, fmt.Errorf("target %s: it is of the other family", t.CIDR)
	}
	var to, tail args
	if t.CIDR.Bits() > 0 {
		to.add("-d", t.CIDR.Masked().String())
	}
	if from != "" {
		tail.add(from)
	}
	var nets []netip.Prefix
	for _, e := range t.Except {
		nets = append(nets, e.Masked())
	}
	if len(nets) > 0 {
		slices.SortFunc(nets, func(a, b netip.Prefix) int {
			return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
		})
		nets = slices.Compact(nets)
		var names []string
		for _, n := range nets {
			names = append(names, n.String())
		}
		id := digest(strings.Join(names, " "), 5)
		name, known := r.excepts[id]
		if !known {
			name = r.addSet(set{name: setName(r.in.Name, r.in.IPv6, "x/"+id, true), nets: nets})
			r.excepts[id] = name
		}
		tail.add("-m set ! --match-set", name, "dst")
	}
	if len(t.Ports) == 0 {
		return []entry{{match: join(to, tail), value: t.Value}}, nil
	}
	var out []entry
	for _, p := range t.Ports {
		proto := args{"-p", strconv.Itoa(int(p.Protocol))}
		if p.Ports != (netfilter.Ports{}) {
			name, known := map[uint8]string{6: "tcp", 17: "udp", 132: "sctp"}[p.Protocol]
			if !known {
				return nil, fmt.Errorf("target %s: protocol %d has no ports", t.CIDR, p.Protocol)
			}
			proto.add("-m", name, "--dport", portRange(p.Ports))
		}
		out = append(out, entry{match: join(to, proto, tail), value: t.Value})
	}
	return out, nil
}

// classify renders a look-up. Where values lead to chains it ends by going on to
// rest; where they are set as the connection's mark it returns.
func (r *renderer) classify(a netfilter.Classify, site, rest string) (target, error) {
	f := r.classifiers[a.By]
	name, verb := chainName(r.in.Name, f.name+"/find", true), "-j "
	if a.To != nil {
		name, verb = chainName(r.in.Name, f.name+"/"+site, true), "-g "
	}
	t := target{match: f.gate, target: verb + name, to: name}
	if _, done := r.chains[name]; done {
		return t, nil
	}
	r.chains[name] = nil
	rules := make([]rule, 0, len(f.entries)+1)
	for _, e := range f.entries {
		to, err := r.hit(a, e.value)
		if err != nil {
			return target{}, err
		}
		rules = append(rules, rule{spec: join(nonEmpty(e.match, "-g "+to)), to: to})
	}
	if rest != "" {
		rules = append(rules, onTo(rest))
	}
	r.chains[name] = rules
	return t, nil
}

// hit is the chain for a value.
func (r *renderer) hit(a netfilter.Classify, value uint32) (string, error) {
	if a.To != nil {
		to, known := r.regular[a.To[value]]
		if !known {
			return "", fmt.Errorf("classifier %s: value %#x leads to no regular chain of the table", a.By, value)
		}
		return to, nil
	}
	name := chainName(r.in.Name, fmt.Sprintf("value/%x", value), true)
	r.chains[name] = []rule{{spec: fmt.Sprintf("-j CONNMARK --set-xmark %#x/0xffffffff", value)}}
	return name, nil
}

// placement is a target at its place in the order, for the classes that have it there.
type placement struct {
	netfilter.Target
	key     string
	classes []int
	group   string
}

// merge brings the classes' targets into one order that keeps each class's own
// precedence. Where two classes disagree on an order, a target is placed twice.
func merge(classes [][]netfilter.Target) []placement {
	type known struct {
		netfilter.Target
		key  string
		left int // classes that still have it to come
	}
	targets := map[string]*known{}
	var order []*known // as first met
	lists := make([][]*known, len(classes))
	for class, list := range classes {
		mine := map[*known]bool{}
		for _, t := range slices.SortedStableFunc(slices.Values(list), precedence) {
			key := identity(t)
			k := targets[key]
			if k == nil {
				k = &known{Target: t, key: key}
				targets[key] = k
				order = append(order, k)
			}
			if !mine[k] {
				mine[k] = true
				k.left++
				lists[class] = append(lists[class], k)
			}
		}
	}
	slices.SortStableFunc(order, func(a, b *known) int {
		return cmp.Or(precedence(a.Target, b.Target), cmp.Compare(a.Value, b.Value), cmp.Compare(a.key, b.key))
	})
	rank := make(map[*known]int, len(order))
	for i, k := range order {
		rank[k] = i
	}

	heads := map[*known][]int{} // classes whose next target it is
	var ready []*known          // those that are next in every class that has them
	arrive := func(class int) {
		if len(lists[class]) == 0 {
			return
		}
		k := lists[class][0]
		heads[k] = append(heads[k], class)
		if len(heads[k]) == k.left {
			at, _ := slices.BinarySearchFunc(ready, k, func(a, b *known) int { return cmp.Compare(rank[a], rank[b]) })
			ready = slices.Insert(ready, at, k)
		}
	}
	for class := range lists {
		arrive(class)
	}
	var out []placement
	for len(heads) > 0 {
		var next *known
		if len(ready) > 0 {
			next, ready = ready[0], ready[1:]
		} else {
			for k := range heads { // two classes disagree: the first is placed for those that wait for it
				if next == nil || rank[k] < rank[next] {
					next = k
				}
			}
		}
		now := heads[next]
		delete(heads, next)
		next.left -= len(now)
		out = append(out, placement{Target: next.Target, key: next.key, classes: now})
		for _, class := range now {
			lists[class] = lists[class][1:]
			arrive(class)
		}
	}
	return out
}

// identity is spelt out: the names of sets come from it, and must outlive a change
// of how some type prints itself.
func identity(t netfilter.Target) string {
	var id strings.Builder
	fmt.Fprintf(&id, "%s=%x", t.CIDR, t.Value)
	for _, e := range t.Except {
		id.WriteString(" -" + e.String())
	}
	for _, p := range t.Ports {
		fmt.Fprintf(&id, " %d:%d-%d", p.Protocol, p.Ports.First, p.Ports.Last)
	}
	return id.String()
}

// nothingLeft says that the exceptions cover the target.
func nothingLeft(t netfilter.Target) bool {
	return slices.ContainsFunc(t.Except, func(e netip.Prefix) bool {
		return e.Bits() <= t.CIDR.Bits() && e.Contains(t.CIDR.Addr())
	})
}

// precedence orders targets: the longest prefix first, then those with ports.
func precedence(a, b netfilter.Target) int {
	withPorts := func(t netfilter.Target) int { return min(len(t.Ports), 1) }
	return cmp.Or(cmp.Compare(b.CIDR.Bits(), a.CIDR.Bits()), cmp.Compare(withPorts(b), withPorts(a)))
}
