package nft

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/sallyport/sallyport/netfilter"
)

// entry is an element of a classifier's maps without its class.
type entry struct {
	first, last string
	data        string
}

// class is what the sources of one class find. Classes that find the same are one.
type class struct {
	ports, hosts []entry // sorted
	size         int     // how many sources it has
}

// source is an address and its class, an index.
type source struct {
	raw   string
	class int
}

// classified is a classifier whose classes have no numbers yet.
type classified struct {
	name           string
	byPort, byHost kind
	classes        []class
	sources        []source // sorted
	others         class    // without sources
}

// othersClass is the number of the class for sources that have none of their own. The
// highest is what nft calls root.
const othersClass = 0xfffffffe

// classifier flattens a classifier's targets and groups its sources.
func (w *wanted) classifier(c netfilter.Classifier, use netfilter.Classify) (classified, error) {
	out := classified{name: c.Name, byPort: portVerdict, byHost: hostVerdict}
	if use.To == nil {
		out.byPort, out.byHost = portMark, hostMark
	}
	data := func(value uint32) (string, error) {
		if use.To == nil {
			return rawHost(value), nil
		}
		if to, known := use.To[value]; known {
			return objectName(to), nil
		}
		return "", fmt.Errorf("classifier %s: there is no chain for value %#x", c.Name, value)
	}
	classes, at, err := w.classesOf(c, data)
	if err != nil {
		return out, err
	}
	others, _, err := w.classesOf(netfilter.Classifier{Name: c.Name, Classes: [][]netfilter.Target{c.Others}}, data)
	if err != nil {
		return out, err
	}
	out.others = others[0]
	raw := w.raw(len(c.Sources), func(i int) netip.Addr { return c.Sources[i].Addr })
	out.classes, out.sources = classes, make([]source, 0, len(raw))
	for i, a := range raw {
		if class := at[c.Sources[i].Class]; a != "" {
			out.sources = append(out.sources, source{a, class})
			classes[class].size++
		}
	}
	return out, nil
}

// number makes the three maps of each classifier, with the numbers that the kernel
// has for the classes where it has some.
func (w *wanted) number(have *present) {
	for _, c := range w.classifiers {
		names := [...]string{sourcesMap(c.name), portsMap(c.name), hostsMap(c.name)}
		sources, ports, hosts := w.flattened.room[names[0]][:0], w.flattened.room[names[1]][:0], w.flattened.room[names[2]][:0]
		ids := numbers(c, have.elements[names[0]], have.elements[names[1]], have.elements[names[2]])
		data, inOrder := make([]string, len(ids)), make([]int, 0, len(ids))
		for i, id := range ids {
			if data[i] = rawHost(id); id != 0 {
				inOrder = append(inOrder, i)
			}
		}
		slices.SortFunc(inOrder, func(a, b int) int { return cmp.Compare(ids[a], ids[b]) })
		for _, s := range c.sources {
			sources = append(sources, element{key{s.raw, s.raw}, data[s.class]})
		}
		add := func(c class, id uint32) {
			prefix := rawClass(id)
			for _, e := range c.ports {
				ports = append(ports, element{key{prefix + e.first, prefix + e.last}, e.data})
			}
			for _, e := range c.hosts {
				hosts = append(hosts, element{key{prefix + e.first, prefix + e.last}, e.data})
			}
		}
		for _, i := range inOrder {
			add(c.classes[i], ids[i])
		}
		add(c.others, othersClass) // the highest
		for i, made := range []wantedSet{{sourceClass, sources}, {c.byPort, ports}, {c.byHost, hosts}} {
			w.sets[names[i]], w.flattened.room[names[i]] = made, made.elements
		}
	}
}

// classesOf flattens the targets of each class; at leads from the index of a class
// to the one of those returned that finds the same.
func (w *wanted) classesOf(c netfilter.Classifier, data func(uint32) (string, error)) (classes []class, at []int, err error) {
	known := map[string]int{}
	for _, targets := range c.Classes {
		var out class
		for _, b := range w.flattened.of(targets) {
			if !w.ours(b.First) {
				continue
			}
			d, err := data(b.Value)
			if err != nil {
				return nil, nil, err
			}
			if hasPorts(b) {
				out.ports = append(out.ports, entry{rawPorts(b.First, b.FirstProtocol, b.Ports.First), rawPorts(b.Last, b.LastProtocol, b.Ports.Last), d})
			}
			// Targets with ports have TCP, UDP or SCTP; the last protocol, which IANA
			// reserves, fares as all others do.
			if b.LastProtocol == 255 {
				out.hosts = append(out.hosts, entry{string(b.First.AsSlice()), string(b.Last.AsSlice()), d})
			}
		}
		look := fingerprint(out)
		i, same := known[look]
		if !same {
			i = len(classes)
			known[look] = i
			classes = append(classes, out)
		}
		at = append(at, i)
	}
	return classes, at, nil
}

// hasPorts says whether the box holds packets of a protocol that is looked up by port.
func hasPorts(b netfilter.Box) bool {
	return slices.ContainsFunc([]uint8{6, 17, 132}, func(p uint8) bool { return b.FirstProtocol <= p && p <= b.LastProtocol })
}

// fingerprint is equal for classes whose sources find the same.
func fingerprint(c class) string {
	compare := func(a, b entry) int {
		return cmp.Or(cmp.Compare(a.first, b.first), cmp.Compare(a.last, b.last), cmp.Compare(a.data, b.data))
	}
	var out []byte
	for _, list := range [][]entry{c.ports, c.hosts} {
		slices.SortFunc(list, compare)
		for _, e := range list {
			out = append(out, e.first...)
			out = append(out, e.last...)
			out = append(append(out, e.data...), 0)
		}
		out = append(out, 1)
	}
	return string(out)
}

// numbers gives each class that has sources the number that most of them have in the
// kernel, else the one under which the kernel has what it finds already, else a free one.
// So a change of one source or one target does not renumber the rest. The others have 0.
func numbers(c classified, sources, ports, hosts elements) []uint32 {
	ids, taken, open := make([]uint32, len(c.classes)), map[uint32]bool{0: true, othersClass: true}, 0
	for _, class := range c.classes {
		open += min(1, class.size)
	}
	settle := func(i int, id uint32) {
		if c.classes[i].size > 0 && ids[i] == 0 && !taken[id] {
			ids[i], taken[id] = id, true
			open--
		}
	}
	for i, id := range commonest(c, sources) {
		settle(i, id)
	}
	if open == 0 {
		return ids
	}
	same := contents(ports, hosts)
	for i, class := range c.classes {
		settle(i, same[fingerprint(class)])
	}
	next := uint32(1)
	for i := range c.classes {
		for taken[next] {
			next++
		}
		settle(i, next)
	}
	return ids
}

// contents are the numbers of the classes that the kernel has, by what they find.
func contents(ports, hosts elements) map[string]uint32 {
	there := map[uint32]*class{}
	collect := func(have elements, into func(*class) *[]entry) {
		for _, e := range have {
			id := be32(e.first[:4])
			if there[id] == nil {
				there[id] = &class{}
			}
			list := into(there[id])
			*list = append(*list, entry{e.first[4:], e.last[4:], e.data})
		}
	}
	collect(ports, func(c *class) *[]entry { return &c.ports })
	collect(hosts, func(c *class) *[]entry { return &c.hosts })
	same := map[string]uint32{}
	for _, id := range slices.Backward(slices.Sorted(maps.Keys(there))) {
		same[fingerprint(*there[id])] = id
	}
	return same
}

// commonest is, for each class, the number that most of its sources have in the kernel; 0
// where none has one.
func commonest(c classified, have elements) []uint32 {
	type vote struct {
		class int
		id    uint32
	}
	votes := map[vote]int{}
	for _, s := range c.sources {
		for len(have) > 0 && have[0].first < s.raw {
			have = have[1:]
		}
		if len(have) > 0 && have[0].first == s.raw {
			votes[vote{s.class, hostValue(have[0].data)}]++
		}
	}
	best, most := make([]uint32, len(c.classes)), make([]int, len(c.classes))
	for v, n := range votes {
		if v.id != 0 && (n > most[v.class] || n == most[v.class] && v.id < best[v.class]) {
			best[v.class], most[v.class] = v.id, n
		}
	}
	return best
}
