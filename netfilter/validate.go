package netfilter

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Validate says whether the table can be carried into a kernel: that every name it
// refers to is there and every match is complete.
func (t Table) Validate() error {
	var errs []error
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("table %s: "+format, append([]any{t.Name}, args...)...))
	}
	if !strings.HasPrefix(t.Name, "sally") || len(t.Name) > 16 {
		bad("the name must begin with sally and have at most 16 characters")
	}
	regular, sets := map[string]bool{}, map[string]bool{}
	for _, c := range t.Chains {
		if c.Hook == "" {
			regular[c.Name] = true
		}
	}
	for _, s := range t.Sets {
		sets[s.Name] = true
	}
	classifiers, everybody := map[string]bool{}, map[string]bool{}
	for _, c := range t.Classifiers {
		classifiers[c.Name], everybody[c.Name] = true, len(c.Others) > 0
		for i, s := range c.Sources {
			if s.Class < 0 || s.Class >= len(c.Classes) {
				bad("classifier %s: source %s has class %d of %d", c.Name, s.Addr, s.Class, len(c.Classes))
			}
			if i > 0 && !c.Sources[i-1].Addr.Less(s.Addr) {
				bad("classifier %s: source %s comes twice, or out of order", c.Name, s.Addr)
			}
		}
		for _, targets := range slices.Concat(c.Classes, [][]Target{c.Others}) {
			if slices.ContainsFunc(targets, func(t Target) bool { return t.Value == 0 || !t.CIDR.IsValid() }) {
				bad("classifier %s: a target has no destination or the value 0", c.Name)
			}
		}
	}
	for _, name := range t.CounterNames() {
		if strings.HasPrefix(name, "_") {
			bad("counter %s: a name must begin with a letter", name)
		}
	}
	for _, c := range t.Chains {
		for i, r := range c.Rules {
			at := fmt.Sprintf("chain %s rule %d", c.Name, i+1)
			for _, s := range []string{r.Match.SrcSet, r.Match.NotSrcSet, r.Match.DstSet} {
				if s != "" && !sets[s] {
					bad("%s: there is no set %s", at, s)
				}
			}
			if r.Match.Unselected != "" && !classifiers[r.Match.Unselected] {
				bad("%s: there is no classifier %s", at, r.Match.Unselected)
			}
			if everybody[r.Match.Unselected] {
				bad("%s: classifier %s has a class for every source", at, r.Match.Unselected)
			}
			if len(r.Match.Protocol) == 0 && (r.Match.DstPort != 0 || r.Match.SrcPorts != Ports{}) {
				bad("%s: a port needs a protocol", at)
			}
			switch a := r.Action.(type) {
			case Goto:
				if !regular[a.Chain] {
					bad("%s: there is no regular chain %s to go to", at, a.Chain)
				}
			case Classify:
				if !classifiers[a.By] {
					bad("%s: there is no classifier %s", at, a.By)
				}
				for _, to := range a.To {
					if !regular[to] {
						bad("%s: there is no regular chain %s to go to", at, to)
					}
				}
			}
		}
	}
	return errors.Join(errs...)
}

// CounterNames are all counters of the table, those only named in rules included,
// sorted.
func (t Table) CounterNames() []string {
	names := make([]string, 0, len(t.Counters))
	seen := make(map[string]bool, len(t.Counters))
	add := func(name string) {
		if !seen[name] {
			seen[name] = true
			names = append(names, name)
		}
	}
	for _, name := range t.Counters {
		add(name)
	}
	for _, c := range t.Chains {
		for _, r := range c.Rules {
			if r.Count != "" {
				add(r.Count)
			}
			if a, ok := r.Action.(CountConnMark); ok {
				for _, name := range a.Names {
					add(name)
				}
			}
		}
	}
	slices.Sort(names)
	return names
}
