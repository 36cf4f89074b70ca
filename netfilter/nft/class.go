package nft

import (
	"cmp"
	"fmt"
	"maps"
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
	sources      []string
}

// classified is a classifier whose classes have no numbers yet.
type classified struct {
	name           string
	byPort, byHost kind
	classes        []class
	others         class // without sources
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
	for i, sources := range w.sourcesOf(c, at, len(classes)) {
		classes[i].sources = sources
	}
	out.classes = slices.DeleteFunc(classes, func(c class) bool { return len(c.sources) == 0 })
	return out, nil
}

// sourcesOf are the addresses of each class, raw. They share one string: there may be tens
// of thousands.
func (w *wanted) sourcesOf(c netfilter.Classifier, at []int, classes int) [][]string {
	size := 4
	if w.family == ipv6 {
		size = 16
	}
	raw, class, count := make([]byte, 0, size*len(c.Sources)), make([]int, 0, len(c.Sources)), make([]int, classes)
	for addr, i := range c.Sources {
		if !w.ours(addr) {
			continue
		}
		whole := addr.As16()
		raw, class = append(raw, whole[16-size:]...), append(class, at[i])
		count[at[i]]++
	}
	room, all, sources := make([]string, len(class)), string(raw), make([][]string, classes)
	for i, n := range count {
		sources[i], room = room[:0:n], room[n:]
	}
	for n, i := range class {
		sources[i] = append(sources[i], all[n*size:(n+1)*size])
	}
	return sources
}

// number makes the three maps of each classifier, with the numbers that the kernel
// has for the classes where it has some.
func (w *wanted) number(have *present) {
	for _, c := range w.classifiers {
		haveSources, havePorts, haveHosts := have.elements[sourcesMap(c.name)], have.elements[portsMap(c.name)], have.elements[hostsMap(c.name)]
		sources := w.flattened.sources(sourcesMap(c.name), len(haveSources))
		ports, hosts := make(elements, len(havePorts)), make(elements, len(haveHosts))
		add := func(c class, id uint32) {
			prefix, number := rawClass(id), rawHost(id)
			for _, s := range c.sources {
				sources[key{s, s}] = number
			}
			for _, e := range c.ports {
				ports[key{prefix + e.first, prefix + e.last}] = e.data
			}
			for _, e := range c.hosts {
				hosts[key{prefix + e.first, prefix + e.last}] = e.data
			}
		}
		for i, id := range numbers(c.classes, haveSources, havePorts, haveHosts) {
			add(c.classes[i], id)
		}
		add(c.others, othersClass)
		w.sets[sourcesMap(c.name)] = wantedSet{sourceClass, sources}
		w.sets[portsMap(c.name)] = wantedSet{c.byPort, ports}
		w.sets[hostsMap(c.name)] = wantedSet{c.byHost, hosts}
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

// numbers gives each class the number that most of its sources have in the kernel,
// else the one under which the kernel has what it finds already, else a free one.
// So a change of one source or one target does not renumber the rest.
func numbers(classes []class, sources, ports, hosts elements) []uint32 {
	ids, taken, open := make([]uint32, len(classes)), map[uint32]bool{0: true, othersClass: true}, len(classes)
	settle := func(i int, id uint32) {
		if ids[i] == 0 && !taken[id] {
			ids[i], taken[id] = id, true
			open--
		}
	}
	votes := map[uint32]int{}
	for i, c := range classes {
		settle(i, commonest(c.sources, sources, votes))
	}
	if open == 0 {
		return ids
	}
	same := contents(ports, hosts)
	for i, c := range classes {
		settle(i, same[fingerprint(c)])
	}
	next := uint32(1)
	for i := range classes {
		for ids[i] == 0 && taken[next] {
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
		for k, data := range have {
			id := be32(k.first[:4])
			if there[id] == nil {
				there[id] = &class{}
			}
			list := into(there[id])
			*list = append(*list, entry{k.first[4:], k.last[4:], data})
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

func commonest(sources []string, have elements, votes map[uint32]int) (best uint32) {
	clear(votes)
	for _, s := range sources {
		data, known := have[key{s, s}]
		if !known {
			continue
		}
		if id := hostValue(data); id != 0 {
			votes[id]++
			if votes[id] > votes[best] || votes[id] == votes[best] && id < best {
				best = id
			}
		}
	}
	return best
}
