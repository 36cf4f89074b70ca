package nft

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/netfilter"
)

// wanted is a table as it should be in the kernel.
type wanted struct {
	name     string
	family   family
	chains   []wantedChain
	sets     map[string]wantedSet
	counters []string
	// classifiers become sets when their classes are numbered.
	classifiers []classified
	others      map[string]bool              // classifiers that have a class for every other source
	counting    map[string]map[uint32]string // by map, mark → counter
	flattened   *flattened
}

type wantedChain struct {
	name  string
	shape chainShape
	lines []line
}

type wantedSet struct {
	kind     kind
	elements elements
}

// hooks are where our base chains go; one that is early goes one priority before.
var hooks = map[netfilter.Hook]chainShape{
	netfilter.PreroutingRaw:    {kind: "filter", hook: unix.NF_INET_PRE_ROUTING, priority: -300},
	netfilter.OutputRaw:        {kind: "filter", hook: unix.NF_INET_LOCAL_OUT, priority: -300},
	netfilter.PreroutingMangle: {kind: "filter", hook: unix.NF_INET_PRE_ROUTING, priority: -150},
	netfilter.InputFilter:      {kind: "filter", hook: unix.NF_INET_LOCAL_IN, priority: 0},
	netfilter.ForwardFilter:    {kind: "filter", hook: unix.NF_INET_FORWARD, priority: 0},
	netfilter.ForwardMangle:    {kind: "filter", hook: unix.NF_INET_FORWARD, priority: -150},
	netfilter.PostroutingNAT:   {kind: "nat", hook: unix.NF_INET_POST_ROUTING, priority: 95},
}

const accept = 1 // NF_ACCEPT, the policy of all our chains

// compile turns the table into what the kernel should have, but for the numbers of
// its classifiers' classes.
func compile(t netfilter.Table) (*wanted, error) { return compileWith(t, newFlattened()) }

// compileWith takes from what is known already.
func compileWith(t netfilter.Table, known *flattened) (*wanted, error) {
	if err := t.Validate(); err != nil {
		return nil, err
	}
	w := &wanted{name: t.Name, family: ipv4, sets: map[string]wantedSet{}, others: map[string]bool{}, counting: map[string]map[uint32]string{}, flattened: known}
	if t.IPv6 {
		w.family = ipv6
	}
	for _, name := range t.CounterNames() {
		w.counters = append(w.counters, objectName(name))
	}
	for _, s := range t.Sets {
		raw := w.raw(len(s.Addrs), func(i int) netip.Addr { return s.Addrs[i] })
		list := make([]element, 0, len(raw))
		for _, a := range raw {
			if a != "" {
				list = append(list, element{key: key{a, a}})
			}
		}
		w.sets[objectName(s.Name)] = wantedSet{kind: addresses, elements: ordered(list)}
	}
	uses, err := usesOf(t)
	if err != nil {
		return nil, err
	}
	for _, c := range t.Classifiers {
		if use, used := uses[c.Name]; used {
			out, err := w.classifier(c, use)
			if err != nil {
				return nil, err
			}
			w.classifiers = append(w.classifiers, out)
			w.others[c.Name] = len(c.Others) > 0
		}
	}
	for _, c := range t.Chains {
		if err := w.chain(c); err != nil {
			return nil, err
		}
	}
	for name, counters := range w.counting {
		list := make([]element, 0, len(counters))
		for mark, counter := range counters {
			raw := rawHost(mark)
			list = append(list, element{key{raw, raw}, objectName(counter)})
		}
		w.sets[name] = wantedSet{kind: counterOfMark, elements: ordered(list)}
	}
	names := slices.Concat(w.counters, slices.Collect(maps.Keys(w.sets)))
	for _, c := range w.classifiers {
		names = append(names, c.name)
	}
	for _, c := range w.chains {
		names = append(names, c.name)
	}
	for _, name := range names {
		if !readable(name) {
			return nil, fmt.Errorf("table %s: the name %q has characters that nft does not take", t.Name, name)
		}
	}
	return w, nil
}

func (w *wanted) ours(a netip.Addr) bool { return a.Is4() == (w.family == ipv4) }

func (w *wanted) chain(c netfilter.Chain) error {
	out := wantedChain{name: objectName(c.Name)}
	if c.Hook != "" {
		shape, known := hooks[c.Hook]
		if !known {
			return fmt.Errorf("chain %s: hook %s is none that nftables is known to have", c.Name, c.Hook)
		}
		if c.Early {
			shape.priority--
		}
		shape.policy = accept
		out.shape = shape
	}
	classified := false
	for i, r := range c.Rules {
		lines, err := w.lines(r)
		if err != nil {
			return fmt.Errorf("chain %s rule %d: %w", c.Name, i+1, err)
		}
		out.lines = append(out.lines, lines...)
		switch a := r.Action.(type) {
		case netfilter.Classify:
			classified = true
		case netfilter.CountConnMark:
			if err := w.count(a); err != nil {
				return err
			}
		}
	}
	if classified {
		out.lines = append(out.lines, newLine("meta priority set 0", "the class was there"))
	}
	w.chains = append(w.chains, out)
	return nil
}

// raw are addresses as keys, "" for one of the other family. They share one string: there
// may be tens of thousands.
func (w *wanted) raw(n int, at func(int) netip.Addr) []string {
	size := 4
	if w.family == ipv6 {
		size = 16
	}
	bytes := make([]byte, 0, n*size)
	for i := range n {
		whole := at(i).As16()
		bytes = append(bytes, whole[16-size:]...)
	}
	all, list := string(bytes), make([]string, n)
	for i := range n {
		if w.ours(at(i)) {
			list[i] = all[i*size : (i+1)*size]
		}
	}
	return list
}

// count adds the counters to the map that their mask has; a mask has one map.
func (w *wanted) count(a netfilter.CountConnMark) error {
	known := w.counting[countMap(a)]
	if known == nil {
		w.counting[countMap(a)] = maps.Clone(a.Names)
		return nil
	}
	for mark, counter := range a.Names {
		if other, taken := known[mark]; taken && other != counter {
			return fmt.Errorf("connection mark %#x/%#x is to be counted as %s and as %s", mark, a.Mask, other, counter)
		}
		known[mark] = counter
	}
	return nil
}

// usesOf finds what each classifier is to yield. Its maps hold the answer itself, so
// that there is one kind for all its uses.
func usesOf(t netfilter.Table) (map[string]netfilter.Classify, error) {
	uses := map[string]netfilter.Classify{}
	for _, c := range t.Chains {
		for _, r := range c.Rules {
			a, ok := r.Action.(netfilter.Classify)
			if !ok {
				continue
			}
			if other, seen := uses[a.By]; seen && ((a.To == nil) != (other.To == nil) || !maps.Equal(a.To, other.To)) {
				return nil, fmt.Errorf("table %s: classifier %s is used in two different ways", t.Name, a.By)
			}
			uses[a.By] = a
		}
	}
	return uses, nil
}
