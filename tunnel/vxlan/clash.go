package vxlan

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/gateway"
)

// Clashes says what others on this host use of what is ours: the tunnel's port,
// our routing tables, the place of our ip rules, our bits of the mark. Each may
// work by luck, so they are named and nothing is refused.
func (a *Applier) Clashes() ([]gateway.Problem, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var problems []gateway.Problem
	found := func(object, flag, format string, args ...any) {
		problems = append(problems, gateway.Problem{Object: object, Field: flag, Reason: gateway.Misconfigured, Message: fmt.Sprintf(format, args...)})
	}
	links, err := a.conn.links()
	if err != nil {
		return nil, err
	}
	for _, l := range links {
		if l.kind == "vxlan" && !ours(l) && l.vxlan.port == a.cfg.Port {
			found("interface "+l.name, "--tunnel-port", "is a VXLAN device of another program on our UDP port %d: give one of the two another port, the same on all nodes", a.cfg.Port)
		}
	}
	rules, err := a.conn.allRules(unix.AF_INET)
	if err != nil {
		return nil, err
	}
	first, last, mask := a.cfg.TableBase+1, a.cfg.TableBase+a.cfg.Marks.Down(), a.cfg.Marks.Mask
	for _, r := range rules {
		if r.protocol == Protocol {
			continue
		}
		object := ruleString(r.Rule)
		if first <= r.Table && r.Table <= last {
			found(object, "--table-base", "of another program leads to one of our tables, %d to %d: choose others", first, last)
		}
		if r.Priority == a.cfg.RulePriority {
			found(object, "--rule-priority", "of another program has our priority, so that which of the two goes first is chance: choose another")
		}
		// A rule for one exact mark without any of our bits leaves our packets alone.
		if r.Mask&mask != 0 && (r.Mask != 1<<32-1 || r.Value&mask != 0) {
			found(object, "--mark-mask", "of another program looks at bits %#x of the mark, of which %#x are ours: choose others", r.Mask, r.Mask&mask)
		}
	}
	routes, err := a.conn.routes(unix.AF_INET, 0, 0, 0)
	if err != nil {
		return nil, err
	}
	foreign := map[int]int{}
	for _, e := range routes {
		if e.protocol != Protocol && first <= e.table && e.table <= last {
			foreign[e.table]++
		}
	}
	for table := first; table <= last; table++ {
		if n := foreign[table]; n > 0 {
			found(fmt.Sprintf("routing table %d", table), "--table-base", "has %d routes of another program, and is one of ours, %d to %d: choose others", n, first, last)
		}
	}
	return problems, nil
}
