package iptables

import (
	"bufio"
	"bytes"
	"fmt"
	"maps"
	"math/bits"
	"slices"
	"strings"
)

// heldSet is a set in the kernel.
type heldSet struct {
	kind    string // "hash:ip inet"
	members map[string]bool
}

// parseSets reads the output of ipset save, of sets of ours only.
func parseSets(save []byte) map[string]*heldSet {
	sets := map[string]*heldSet{}
	lines := bufio.NewScanner(bytes.NewReader(save))
	for lines.Scan() {
		verb, rest, _ := strings.Cut(lines.Text(), " ")
		name, rest, _ := strings.Cut(rest, " ")
		if !strings.HasPrefix(name, setPrefix) {
			continue
		}
		switch verb {
		case "create":
			f := strings.Fields(rest)
			s := &heldSet{members: map[string]bool{}}
			if len(f) > 2 && f[1] == "family" {
				s.kind = f[0] + " " + f[2]
			}
			sets[name] = s
		case "add":
			if s := sets[name]; s != nil {
				s.members[rest] = true
			}
		}
	}
	return sets
}

func (s set) kind(ipv6 bool) string {
	kind := "hash:ip "
	if len(s.nets) > 0 {
		kind = "hash:net "
	}
	if ipv6 {
		return kind + "inet6"
	}
	return kind + "inet"
}

func (s set) members() []string {
	out := make([]string, 0, len(s.addrs)+len(s.nets))
	for _, a := range s.addrs {
		out = append(out, a.String())
	}
	for _, n := range s.nets {
		if n.IsSingleIP() {
			out = append(out, n.Addr().String()) // as ipset spells it
		} else {
			out = append(out, n.String())
		}
	}
	return out
}

// generations tell the old set from the new where a set is replaced as a whole.
var generations = []string{".a", ".b"}

// fewChanges are made to the set in place, one after the other. More make a new
// set of the next generation, which the rules change over to in one step.
const fewChanges = 64

// generation chooses the set that the rules are to name.
func generation(held map[string]*heldSet, ipv6 bool) func(set) string {
	return func(s set) string {
		for _, g := range generations {
			h := held[s.name+g]
			if h == nil || h.kind != s.kind(ipv6) {
				continue
			}
			missing := 0
			members := s.members()
			for _, m := range members {
				if !h.members[m] {
					missing++
				}
			}
			if changes := missing + len(h.members) - (len(members) - missing); changes <= fewChanges {
				return g
			}
		}
		// A generation that the kernel lacks, or the one that no rule should name any
		// more: what an interrupted change left of it is filled in before it is named.
		for _, g := range generations {
			if held[s.name+g] == nil {
				return g
			}
		}
		return generations[0]
	}
}

// setChanges are the inputs of ipset restore before the rules change, when sets
// only grow, and after it, when they shrink and go. Those that free do it the other
// way round: a pod is let go when the rules that steer it are there.
func (p program) setChanges(held map[string]*heldSet) (before, after string) {
	var grow, shrink strings.Builder
	wanted := map[string]bool{}
	for _, s := range p.sets {
		wanted[s.name] = true
		members := s.members()
		adds, dels := &grow, &shrink
		h := held[s.name]
		if h != nil && s.frees {
			adds, dels = &shrink, &grow
		}
		if h == nil {
			fmt.Fprintf(&grow, "create %s %s maxelem 1048576 hashsize %d\n", s.name, strings.Replace(s.kind(p.ipv6), " ", " family ", 1), hashSize(len(members)))
			h = &heldSet{}
		}
		want := make(map[string]bool, len(members))
		for _, m := range members {
			want[m] = true
			if !h.members[m] {
				adds.WriteString("add " + s.name + " " + m + "\n")
			}
		}
		for _, m := range slices.Sorted(maps.Keys(h.members)) {
			if !want[m] {
				dels.WriteString("del " + s.name + " " + m + "\n")
			}
		}
	}
	prefix := setsOf(p.table, p.ipv6)
	for _, name := range slices.Sorted(maps.Keys(held)) {
		if strings.HasPrefix(name, prefix) && !wanted[name] {
			shrink.WriteString("destroy " + name + "\n")
		}
	}
	return grow.String(), shrink.String()
}

// hashSize has room for n members without growing; the kernel's least is 64.
func hashSize(n int) int {
	return max(64, 1<<bits.Len(uint(max(n, 1)-1)))
}
