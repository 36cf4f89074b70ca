package nft

import (
	"maps"
	"slices"
	"strconv"

	"sigs.k8s.io/knftables"
)

// change is a transaction and what is in it.
type change struct {
	tx             *knftables.Transaction
	rebuilt        bool
	chains         int
	added, removed int
	edits          []edit // the elements among it
}

// difference fills the transaction with what leads from have to want. Where what
// is there has another shape (a chain at another hook, a set of another type), which
// only someone else or another version of us can have made, the whole table is
// replaced in the same step; counters keep their readings.
func difference(tx *knftables.Transaction, w *wanted, have *present) *change {
	d := &change{tx: tx}
	family := knftables.Family(w.family.String())
	table := &knftables.Table{Family: family, Name: w.name}
	if have.exists && !w.fits(have) {
		d.rebuilt = true
		tx.Delete(table)
		have = &present{counters: have.counters}
	}
	counters := have.counters
	if !have.exists {
		tx.Add(table)
		counters = nil
	}
	kept := map[string]bool{}
	for _, name := range w.counters {
		kept[name] = true
		if _, there := counters[name]; there {
			continue
		}
		c := &knftables.Counter{Family: family, Table: w.name, Name: name}
		if n, counted := have.counters[name]; counted {
			c.Packets, c.Bytes = &n.Packets, &n.Bytes
		}
		tx.Add(c)
	}
	chains := map[string]bool{}
	for _, c := range w.chains {
		chains[c.name] = true
		if _, there := have.chains[c.name]; !there {
			tx.Add(declare(family, w.name, c))
		}
	}
	names := slices.Sorted(maps.Keys(w.sets))
	for _, name := range names {
		if _, there := have.sets[name]; !there {
			tx.Add(w.declareSet(family, name))
		}
	}
	for _, name := range names {
		d.elements(w, family, name, have.elements[name])
	}
	for _, c := range w.chains {
		d.rules(family, w.name, c, have)
	}
	// What nothing of the above refers to any more can go: first the rules of chains,
	// which look maps up, then the maps, which lead to chains and counters.
	var stale []string
	for _, name := range slices.Sorted(maps.Keys(have.chains)) {
		if !chains[name] {
			stale = append(stale, name)
			tx.Flush(&knftables.Chain{Family: family, Table: w.name, Name: name})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(have.sets)) {
		if _, wanted := w.sets[name]; !wanted {
			tx.Delete(&knftables.Set{Family: family, Table: w.name, Name: name})
		}
	}
	for _, name := range stale {
		tx.Delete(&knftables.Chain{Family: family, Table: w.name, Name: name})
	}
	for _, name := range slices.Sorted(maps.Keys(counters)) {
		if !kept[name] {
			tx.Delete(&knftables.Counter{Family: family, Table: w.name, Name: name})
		}
	}
	return d
}

// fits says whether what exists can be changed into what is wanted.
func (w *wanted) fits(have *present) bool {
	if have.flags != 0 {
		return false // dormant, or owned by another process
	}
	for _, c := range w.chains {
		if shape, there := have.chains[c.name]; there && shape != c.shape {
			return false
		}
	}
	for name, set := range w.sets {
		if shape, there := have.sets[name]; there && !shape.same(set.kind.shape(w.family)) {
			return false
		}
	}
	return true
}

var hookNames = []knftables.BaseChainHook{
	knftables.PreroutingHook, knftables.InputHook, knftables.ForwardHook, knftables.OutputHook, knftables.PostroutingHook,
}

func declare(family knftables.Family, table string, c wantedChain) *knftables.Chain {
	chain := &knftables.Chain{Family: family, Table: table, Name: c.name}
	if c.shape.kind != "" {
		chain.Type = knftables.PtrTo(knftables.BaseChainType(c.shape.kind))
		chain.Hook = knftables.PtrTo(hookNames[c.shape.hook])
		chain.Priority = knftables.PtrTo(knftables.BaseChainPriority(strconv.Itoa(int(c.shape.priority))))
	}
	return chain
}

func (w *wanted) declareSet(family knftables.Family, name string) knftables.Object {
	k := w.sets[name].kind
	if !k.isMap() {
		return &knftables.Set{Family: family, Table: w.name, Name: name, Type: k.declaration(w.family)}
	}
	m := &knftables.Map{Family: family, Table: w.name, Name: name, Type: k.declaration(w.family)}
	if k.isInterval() {
		m.Flags = []knftables.SetFlag{knftables.IntervalFlag}
	}
	return m
}

// elements brings one set up to date. Removals come first: an interval that is to
// be replaced overlaps the one replacing it, and a map's datum cannot be changed.
func (d *change) elements(w *wanted, family knftables.Family, name string, have elements) {
	set := w.sets[name]
	spelled := func(e element) *knftables.Element {
		out := &knftables.Element{Family: family, Table: w.name, Key: []string{set.kind.text(w.family, e.key)}}
		if set.kind.isMap() {
			out.Map, out.Value = name, []string{set.kind.data(e.data)}
		} else {
			out.Set = name
		}
		return out
	}
	gone, added := set.elements.differ(have)
	for _, e := range gone {
		d.tx.Delete(spelled(e))
	}
	for _, e := range added {
		d.tx.Add(spelled(e))
	}
	if len(gone)+len(added) > 0 {
		d.edits = append(d.edits, edit{set: name, kind: set.kind, gone: gone, added: added})
	}
	d.removed += len(gone)
	d.added += len(added)
}

// rules rewrites a chain whose rules are not those wanted, in that order.
func (d *change) rules(family knftables.Family, table string, c wantedChain, have *present) {
	if slices.EqualFunc(c.lines, have.rules[c.name], func(want line, comment string) bool { return want.comment == comment }) {
		return
	}
	d.chains++
	if len(have.rules[c.name]) > 0 {
		d.tx.Flush(&knftables.Chain{Family: family, Table: table, Name: c.name})
	}
	for _, l := range c.lines {
		d.tx.Add(&knftables.Rule{Family: family, Table: table, Chain: c.name, Rule: l.text, Comment: knftables.PtrTo(l.comment)})
	}
}
