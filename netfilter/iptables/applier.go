// Package iptables carries the rule model of package netfilter into the kernel as
// iptables rules and ipset sets, in either of the two variants of iptables.
//
// Nothing is remembered between calls: every Apply reads what the kernel has, by
// iptables-save and ipset save, and writes the difference. Each kernel table
// changes in one transaction; sets grow before it and shrink after it.
package iptables

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"strings"
	"sync"

	"github.com/sallyport/sallyport/netfilter"
)

// Applier makes the kernel equal to tables. Its methods work in the network
// namespace of the calling thread.
type Applier struct {
	variant Variant
	log     *slog.Logger
	// one change or reading at a time: between reading the counts of a rule and
	// moving them to the ledger, nobody is to read their sum.
	one sync.Mutex
}

// New checks that the programs of the variant are there. It changes nothing.
func New(variant Variant, log *slog.Logger) (*Applier, error) {
	if variant != NFT && variant != Legacy {
		return nil, fmt.Errorf("iptables variant %q is unknown: it is %s or %s", variant, NFT, Legacy)
	}
	var missing []error
	for _, name := range []string{variant.tool(false, "-save"), variant.tool(false, "-restore"), "ipset"} {
		if _, err := exec.LookPath(name); err != nil {
			missing = append(missing, fmt.Errorf("%s is %w: install the package %s", name, ErrNotInstalled, packageOf(name)))
		}
	}
	if err := errors.Join(missing...); err != nil {
		return nil, err
	}
	return &Applier{variant: variant, log: log}, nil
}

// Variant is the variant that the applier works on.
func (a *Applier) Variant() Variant { return a.variant }

// Apply makes the kernel equal to the table, and writes nothing where it is so.
func (a *Applier) Apply(ctx context.Context, t netfilter.Table) error {
	a.one.Lock()
	defer a.one.Unlock()
	if err := checkTable(t.Name); err != nil {
		return err
	}
	return a.settle(ctx, t.Name, t.IPv6, func(sets map[string]*heldSet) (program, error) {
		return render(t, generation(sets, t.IPv6))
	})
}

// rounds bounds how often a table is looked at again after a change. Two programs
// that start at once each put their jumps where they belong by what they read: only
// a look afterwards tells that the order came out right, and a change is refused
// where a jump that it moves has been moved since.
const rounds = 5

// settle writes the difference to the program, from a new reading each time, until
// there is none.
func (a *Applier) settle(ctx context.Context, table string, ipv6 bool, want func(map[string]*heldSet) (program, error)) error {
	var refused error
	for range rounds {
		rules, sets, err := a.read(ctx, ipv6)
		if err != nil {
			return fmt.Errorf("read the rules in force: %w", err)
		}
		p, err := want(sets)
		if err != nil {
			return err
		}
		wrote, err := a.change(ctx, p, rules, sets)
		if err == nil && !wrote {
			return nil
		}
		switch {
		case ctx.Err() != nil:
			return errors.Join(err, ctx.Err())
		case errors.Is(err, ErrLocked): // it has waited; whoever asked should know
			return err
		}
		refused = err
	}
	if refused != nil {
		return refused
	}
	return fmt.Errorf("the rules of table %s do not stay as they are put: another program keeps changing them", table)
}

// read lists the kernel, both programs side by side.
func (a *Applier) read(ctx context.Context, ipv6 bool) (map[string]*listing, map[string]*heldSet, error) {
	save := start(ctx, "", a.variant.tool(ipv6, "-save"), "-c")
	list := start(ctx, "", "ipset", "save")
	rules, ruleErr := save.wait()
	sets, setErr := list.wait()
	if err := errors.Join(ruleErr, setErr); err != nil {
		return nil, nil, err
	}
	return parseSave(rules), parseSets(sets), nil
}

// change writes the difference and says whether there was one in the rules.
func (a *Applier) change(ctx context.Context, p program, rules map[string]*listing, sets map[string]*heldSet) (bool, error) {
	grow, shrink := p.setChanges(sets)
	script := p.changes(rules, a.variant)
	if grow != "" {
		if _, err := run(ctx, grow, "ipset", "restore", "-exist"); err != nil {
			return false, fmt.Errorf("fill the sets of table %s: %w", p.table, err)
		}
	}
	if script != "" {
		if _, err := run(ctx, script, a.variant.tool(p.ipv6, "-restore"), "--noflush", "--counters", "-w", lockWait); err != nil {
			return false, fmt.Errorf("change the rules of table %s: %w", p.table, err)
		}
	}
	if shrink != "" {
		if _, err := run(ctx, shrink, "ipset", "restore", "-exist"); err != nil {
			return false, fmt.Errorf("clear the sets of table %s: %w", p.table, err)
		}
	}
	if grow+script+shrink != "" {
		a.log.Debug("netfilter table changed", "table", p.table, "variant", a.variant,
			"set_changes", strings.Count(grow+shrink, "\n"), "rule_changes", strings.Count(script, "\n"))
	}
	return script != "", nil
}

// Counters reads the counters of a table, both families together. A counter that
// stands on several rules is their sum.
func (a *Applier) Counters(ctx context.Context, table string) (map[string]netfilter.Counts, error) {
	a.one.Lock()
	defer a.one.Unlock()
	prefix := chainsOf(table)
	counts := map[string]netfilter.Counts{}
	for _, ipv6 := range a.families() {
		save, err := run(ctx, "", a.variant.tool(ipv6, "-save"), "-c")
		if err != nil {
			return nil, fmt.Errorf("read the counters of table %s: %w", table, err)
		}
		for _, t := range parseSave(save) {
			for name, rules := range t.chains {
				if !strings.HasPrefix(name, prefix) {
					continue
				}
				for _, r := range rules {
					if c := counterIn(r.comment); c != "" {
						counts[c] = sum(counts[c], r.counts)
					}
				}
			}
		}
	}
	return counts, nil
}

// families are those whose programs are there.
func (a *Applier) families() []bool {
	if _, err := exec.LookPath(a.variant.tool(true, "-save")); err != nil {
		return []bool{false}
	}
	return []bool{false, true}
}

// Remove takes one table out of the kernel, in both families.
func (a *Applier) Remove(ctx context.Context, table string) error {
	a.one.Lock()
	defer a.one.Unlock()
	if err := checkTable(table); err != nil {
		return err
	}
	var wrong []error
	for _, ipv6 := range a.families() {
		err := a.settle(ctx, table, ipv6, func(map[string]*heldSet) (program, error) {
			return program{table: table, ipv6: ipv6}, nil
		})
		if err == nil {
			err = removeEmpty(ctx, a.variant, ipv6)
		}
		if err != nil {
			wrong = append(wrong, fmt.Errorf("remove table %s: %w", table, err))
		}
	}
	return errors.Join(wrong...)
}
