package iptables

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/sallyport/sallyport/netfilter"
)

// Pending is what keeps the kernel's table from being equal to t now, of the members
// of sets only those that concern the addresses: other sources come and go all the time.
func (a *Applier) Pending(ctx context.Context, t netfilter.Table, about []netip.Addr) ([]netfilter.Pending, error) {
	a.one.Lock()
	defer a.one.Unlock()
	rules, sets, err := a.read(ctx, t.IPv6)
	if err != nil {
		return nil, fmt.Errorf("read the rules in force: %w", err)
	}
	p, err := render(t, generation(sets, t.IPv6))
	if err != nil {
		return nil, err
	}
	var out []netfilter.Pending
	before, after := p.setChanges(sets)
	for line := range strings.Lines(before + after) {
		f := strings.Fields(line)
		switch f[0] {
		case "create":
			out = append(out, netfilter.Pending{Set: true, Object: "ipset " + f[1], Text: "is missing"})
		case "add":
			if a, err := netip.ParseAddr(f[2]); err == nil && !slices.Contains(about, a) {
				continue
			}
			out = append(out, netfilter.Pending{Set: true, Object: "ipset " + f[1], Text: "member " + f[2] + " is missing"})
		}
	}
	table := ""
	for line := range strings.Lines(p.changes(rules, a.variant)) {
		line = strings.TrimSpace(line)
		verb, rest, _ := strings.Cut(line, " ")
		chain, spec, _ := strings.Cut(rest, " ")
		switch {
		case strings.HasPrefix(line, "*"):
			table = line[1:]
		case verb == "-A", verb == "-I", strings.Contains(line, "] -A "):
			if verb != "-A" && verb != "-I" { // with counts
				_, rest, _ = strings.Cut(line, "] -A ")
				chain, spec, _ = strings.Cut(rest, " ")
			}
			if chain == chainName(t.Name, ledger, true) {
				continue
			}
			out = append(out, netfilter.Pending{Object: "chain " + table + " " + chain, Text: fmt.Sprintf("rule %q is missing", bareSpec(spec))})
		}
	}
	return out, nil
}

// bareSpec is a rule without the comment that it is known by.
func bareSpec(spec string) string {
	if _, rest, found := strings.Cut(spec, `-m comment --comment "`); found {
		if _, rest, found = strings.Cut(rest, `" `); found {
			return rest
		}
	}
	return spec
}
