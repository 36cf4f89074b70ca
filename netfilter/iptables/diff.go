package iptables

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/sallyport/sallyport/netfilter"
)

// marker is a chain of ours that says: this kernel table was not there before us.
// When nothing else is left in it, the table goes too.
const marker = chainPrefix + "/MADE"

// changes is the input of iptables-restore --noflush that makes the kernel equal to
// the program; "" when it is so already. Rules that stay are not touched, so that
// they keep their counts; the counts of those that go are added to the ledger.
func (p program) changes(kernel map[string]*listing, variant Variant) string {
	var out strings.Builder
	home, bare := p.home(), p.bare()
	for _, name := range p.order() {
		k := kernel[name]
		made := k == nil
		if made {
			k = &listing{}
		}
		s := script{k: k}
		want := map[string][]rule{}
		maps.Copy(want, p.chains[name])
		prefix := chainsOf(p.table)
		book := chainName(p.table, ledger, true)
		gone := s.chains(prefix, want, book)
		declare := bare
		if name != home {
			declare = nil
		}
		s.ledger(book, p.counters, declare, gone)
		s.jumps(prefix, p.jumps[name])
		s.drop(prefix, want, book)
		if s.empty() {
			continue
		}
		if made && variant == NFT {
			s.declare = append(s.declare, ":"+marker+" - [0:0]")
		}
		out.WriteString(s.text(name))
	}
	return out.String()
}

// order of the kernel tables: what is only removed goes the other way round.
func (p program) order() []string {
	if len(p.chains) > 0 {
		return commitOrder
	}
	order := slices.Clone(commitOrder)
	slices.Reverse(order)
	return order
}

// bare are the counters that no rule names.
func (p program) bare() map[string]bool {
	bare := map[string]bool{}
	for _, c := range p.counters {
		bare[c] = true
	}
	for _, chains := range p.chains {
		for _, rules := range chains {
			for _, r := range rules {
				delete(bare, r.count)
			}
		}
	}
	return bare
}

// home is the kernel table whose ledger names the bare counters.
func (p program) home() string {
	if len(p.counters) == 0 {
		return ""
	}
	for _, name := range slices.Backward(commitOrder) {
		if len(p.chains[name]) > 0 {
			return name
		}
	}
	return commitOrder[len(commitOrder)-1]
}

// script is the change of one kernel table, in the order in which it is written.
type script struct {
	k                            *listing
	declare, rules, heads, drops []string
	removing                     []string
}

func (s *script) empty() bool {
	return len(s.declare)+len(s.rules)+len(s.heads)+len(s.drops) == 0
}

func (s *script) text(table string) string {
	return "*" + table + "\n" + strings.Join(slices.Concat(s.declare, s.rules, s.removing, s.heads, s.drops), "\n") + "\nCOMMIT\n"
}

// chains changes the wanted chains, and returns the counts of the rules that go.
func (s *script) chains(prefix string, want map[string][]rule, book string) map[string]netfilter.Counts {
	gone := map[string]netfilter.Counts{}
	retire := func(l listed) {
		if name := counterIn(l.comment); name != "" && l.counts != (netfilter.Counts{}) {
			gone[name] = sum(gone[name], l.counts)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		have, exists := s.k.chains[name]
		if !exists {
			s.declare = append(s.declare, ":"+name+" - [0:0]")
		}
		s.edit(name, have, want[name], retire)
	}
	for name, rules := range s.k.chains {
		if _, wanted := want[name]; !wanted && strings.HasPrefix(name, prefix) && name != book {
			for _, l := range rules {
				retire(l)
			}
		}
	}
	return gone
}

// edit turns the rules of one chain into the wanted ones.
func (s *script) edit(name string, have []listed, want []rule, retire func(listed)) {
	wanted := make([]string, len(want))
	for i, r := range want {
		wanted[i] = r.comment()
	}
	stay := common(have, wanted)
	if len(stay) == 0 && len(have) > 0 {
		s.rules = append(s.rules, "-F "+name)
		for _, l := range have {
			retire(l)
		}
		have = nil
	}
	left := map[int]bool{}
	for _, pair := range stay {
		left[pair.have] = true
	}
	for i := len(have) - 1; i >= 0; i-- {
		if !left[i] {
			retire(have[i])
			s.rules = append(s.rules, fmt.Sprintf("-D %s %d", name, i+1))
		}
	}
	next := 0
	for i, r := range want {
		switch {
		case next < len(stay) && stay[next].want == i:
			next++
		case next == len(stay):
			s.rules = append(s.rules, "-A "+name+" "+r.args())
		default:
			s.rules = append(s.rules, fmt.Sprintf("-I %s %d %s", name, i+1, r.args()))
		}
	}
}

// pair is a rule that stays, by its places before and after.
type pair struct{ have, want int }

// common is a longest sequence of rules that both have in the same order. Most
// rules are told apart by their comment, so that it is found as the longest
// ascending sequence of places.
func common(have []listed, want []string) []pair {
	places := map[string][]int{}
	for i, l := range have {
		if l.comment != "" {
			places[l.comment] = append(places[l.comment], i)
		}
	}
	var pairs []pair
	for i, c := range want {
		if at := places[c]; len(at) > 0 {
			pairs = append(pairs, pair{have: at[0], want: i})
			places[c] = at[1:]
		}
	}
	// Patience sorting: tails[n] ends the best sequence of n+1, before links back.
	var tails []int
	before := make([]int, len(pairs))
	for i, p := range pairs {
		at, _ := slices.BinarySearchFunc(tails, p.have, func(t, have int) int { return pairs[t].have - have })
		before[i] = -1
		if at > 0 {
			before[i] = tails[at-1]
		}
		if at == len(tails) {
			tails = append(tails, i)
		} else {
			tails[at] = i
		}
	}
	if len(tails) == 0 {
		return nil
	}
	var out []pair
	for i := tails[len(tails)-1]; i >= 0; i = before[i] {
		out = append(out, pairs[i])
	}
	slices.Reverse(out)
	return out
}

// ledger adds what went to what was kept before, and names the counters that no
// rule does, so that they read zero. Its rules see no packet, so replacing one loses nothing.
func (s *script) ledger(name string, counters []string, bare map[string]bool, gone map[string]netfilter.Counts) {
	have, exists := s.k.chains[name]
	kept := map[string]netfilter.Counts{}
	place := map[string]int{}
	declared := map[string]bool{}
	for _, c := range counters {
		declared[c] = true
	}
	var stale []int
	for i, l := range have {
		c := counterIn(l.comment)
		_, twice := place[c]
		add := gone[c]
		keep := declared[c] && !twice && (bare[c] || l.counts != (netfilter.Counts{}))
		if keep && add == (netfilter.Counts{}) {
			place[c] = i
			continue
		}
		stale = append(stale, i)
		if declared[c] {
			kept[c] = sum(kept[c], l.counts)
		}
	}
	var lines []string
	for _, i := range slices.Backward(stale) {
		lines = append(lines, fmt.Sprintf("-D %s %d", name, i+1))
	}
	for _, c := range slices.Compact(slices.Sorted(slices.Values(counters))) {
		n := sum(kept[c], gone[c])
		if _, stays := place[c]; stays || (!bare[c] && n == (netfilter.Counts{})) {
			continue
		}
		lines = append(lines, fmt.Sprintf("[%d:%d] -A %s %s", n.Packets, n.Bytes, name, rule{count: c}.args()))
	}
	if len(lines) == 0 {
		if exists && len(have) == 0 {
			s.drops = append(s.drops, "-X "+name)
		}
		return
	}
	if !exists {
		s.declare = append(s.declare, ":"+name+" - [0:0]")
	} else if len(stale) == len(have) && len(lines) == len(stale) {
		s.drops = append(s.drops, "-X "+name)
	}
	s.rules = append(s.rules, lines...)
}

func sum(a, b netfilter.Counts) netfilter.Counts {
	return netfilter.Counts{Packets: a.Packets + b.Packets, Bytes: a.Bytes + b.Bytes}
}

// jumps puts the jumps to all our chains at the head of each built-in chain: the
// early ones of all tables, then the others, tables by name, so that two programs
// agree on the order. Shared chains are changed by rule, never by number.
func (s *script) jumps(prefix string, want map[string][]jump) {
	chains := map[string]bool{}
	for name := range want {
		chains[name] = true
	}
	for name, b := range s.k.builtins {
		if len(b.jumps) > 0 {
			chains[name] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(chains)) {
		b := s.k.builtins[name]
		if b == nil {
			b = &builtin{}
		}
		var block []jump
		for _, j := range b.jumps {
			if !strings.HasPrefix(j.chain, prefix) {
				block = append(block, j.jump)
			}
		}
		block = append(block, want[name]...)
		slices.SortStableFunc(block, func(a, b jump) int {
			if a.early != b.early {
				if a.early {
					return -1
				}
				return 1
			}
			return strings.Compare(tableOf(a.chain), tableOf(b.chain))
		})
		if inPlace(b.jumps, block) {
			continue
		}
		for _, j := range b.jumps {
			s.heads = append(s.heads, j.deleteFrom(name))
		}
		for i, j := range block {
			s.heads = append(s.heads, fmt.Sprintf("-I %s %d %s", name, i+1, j.rule().args()))
		}
	}
}

func inPlace(have []jumpAt, want []jump) bool {
	if len(have) != len(want) {
		return false
	}
	for i, j := range have {
		if j.at != i || j.jump != want[i] || j.comment != want[i].rule().comment() {
			return false
		}
	}
	return true
}

// tableOf is the prefix that a chain of ours shares with those of its table.
func tableOf(chain string) string {
	token, _, _ := strings.Cut(strings.TrimPrefix(chain, chainPrefix), "-")
	return token
}

// drop removes the chains that are no longer wanted: all are emptied first, since
// they lead to each other.
func (s *script) drop(prefix string, want map[string][]rule, book string) {
	var names []string
	for name := range s.k.chains {
		if _, wanted := want[name]; !wanted && strings.HasPrefix(name, prefix) && name != book {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		s.removing = append(s.removing, "-F "+name)
		s.drops = append(s.drops, "-X "+name)
	}
}

// deleteFrom deletes the jump by what it is, not where it is: others change
// built-in chains too.
func (j jumpAt) deleteFrom(chain string) string {
	return fmt.Sprintf(`-D %s -m comment --comment "%s" -j %s`, chain, j.comment, j.chain)
}
