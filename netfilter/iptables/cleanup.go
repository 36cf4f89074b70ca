package iptables

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strings"
)

// Cleanup takes everything of ours out of the kernel: of every table, in both
// families and both variants, whichever variant the applier works on.
func (a *Applier) Cleanup(ctx context.Context) error {
	a.one.Lock()
	defer a.one.Unlock()
	return Cleanup(ctx)
}

// Cleanup is the Applier's, for where no variant is chosen. A variant that is not
// installed is passed over: nothing can have been made with it here.
func Cleanup(ctx context.Context) error {
	var wrong []error
	for _, v := range []Variant{NFT, Legacy} {
		for _, ipv6 := range []bool{false, true} {
			if _, err := exec.LookPath(v.tool(ipv6, "-save")); err != nil {
				continue
			}
			if err := cleanRules(ctx, v, ipv6); err != nil {
				wrong = append(wrong, fmt.Errorf("remove our chains: %w", err))
			}
		}
	}
	if _, err := exec.LookPath("ipset"); err == nil {
		if err := cleanSets(ctx); err != nil {
			wrong = append(wrong, fmt.Errorf("remove our sets: %w", err))
		}
	}
	return errors.Join(wrong...)
}

func cleanRules(ctx context.Context, v Variant, ipv6 bool) error {
	save, err := run(ctx, "", v.tool(ipv6, "-save"), "-c")
	if err != nil {
		return err
	}
	var all strings.Builder
	kernel := parseSave(save)
	for _, name := range slices.Backward(commitOrder) {
		k := kernel[name]
		if k == nil {
			continue
		}
		s := script{k: k}
		for chain, b := range k.builtins {
			for _, j := range b.jumps {
				s.heads = append(s.heads, j.deleteFrom(chain))
			}
		}
		for _, chain := range slices.Sorted(maps.Keys(k.chains)) {
			if chain == marker {
				continue
			}
			s.removing = append(s.removing, "-F "+chain)
			s.drops = append(s.drops, "-X "+chain)
		}
		if !s.empty() {
			all.WriteString(s.text(name))
		}
	}
	if all.Len() > 0 {
		if _, err := run(ctx, all.String(), v.tool(ipv6, "-restore"), "--noflush", "--counters", "-w", lockWait); err != nil {
			return err
		}
	}
	return removeEmpty(ctx, v, ipv6)
}

func cleanSets(ctx context.Context) error {
	names, err := run(ctx, "", "ipset", "list", "-name")
	if err != nil {
		return err
	}
	var script strings.Builder
	for name := range strings.FieldsSeq(string(names)) {
		if strings.HasPrefix(name, setPrefix) {
			script.WriteString("destroy " + name + "\n")
		}
	}
	if script.Len() == 0 {
		return nil
	}
	_, err = run(ctx, script.String(), "ipset", "restore", "-exist")
	return err
}

// removeEmpty removes the kernel tables that our first rule made, as iptables-nft
// makes them, once nothing else is in them. The kernel refuses to remove a chain
// with rules, so that a rule of another program made meanwhile keeps its table.
func removeEmpty(ctx context.Context, v Variant, ipv6 bool) error {
	if v != NFT {
		return nil // a table of iptables-legacy stays until its module is unloaded
	}
	save, err := run(ctx, "", v.tool(ipv6, "-save"), "-c")
	if err != nil {
		return err
	}
	family := "ip"
	if ipv6 {
		family = "ip6"
	}
	var wrong []error
	for _, name := range commitOrder {
		k := parseSave(save)[name]
		if k == nil || len(k.chains) != 1 {
			continue
		}
		if _, ours := k.chains[marker]; !ours {
			continue
		}
		if _, err := run(ctx, "*"+name+"\n-X "+marker+"\nCOMMIT\n", v.tool(ipv6, "-restore"), "--noflush", "-w", lockWait); err != nil {
			wrong = append(wrong, err)
			continue
		}
		if !k.bare() {
			continue
		}
		for chain := range k.builtins {
			// Refused for one in use by now, and for one that is only listed.
			_, _ = run(ctx, "", v.tool(ipv6, ""), "-t", name, "-X", chain)
		}
		if _, err := exec.LookPath("nft"); err != nil {
			continue
		}
		if text, err := run(ctx, "", "nft", "list", "table", family, name); err == nil && !strings.Contains(string(text), "chain ") {
			_, err = run(ctx, "", "nft", "delete", "table", family, name)
			wrong = append(wrong, err)
		}
	}
	return errors.Join(wrong...)
}

// bare says that a table has nothing in it but built-in chains that accept.
func (t *listing) bare() bool {
	for _, b := range t.builtins {
		if b.policy != "ACCEPT" {
			return false
		}
	}
	return t.foreign == 0 && t.rules == 0
}
