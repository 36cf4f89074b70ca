package iptables

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
)

// Limits says what the applier cannot win against. Of NAT chains with one priority
// the kernel asks the one registered last first (nf_hook_entry_head grows at the
// front), and iptables has no say in its priority.
func (a *Applier) Limits() []string {
	return []string{
		"a masquerade in an nft table of its own, at priority 100 or less, if it was made after the nat table of " + string(a.variant),
		"a masquerade of " + string(a.variant.other()) + ", if its nat table was made after that of " + string(a.variant),
		"a rule that another program puts before our jumps, until the next apply puts them back",
	}
}

// Rivals names the rules of others, found now, that may translate the source of
// our connections before we keep it.
func (a *Applier) Rivals(ctx context.Context) ([]string, error) {
	var found []string
	var wrong []error
	other := a.variant.other()
	for _, ipv6 := range []bool{false, true} {
		name := other.tool(ipv6, "-save")
		if _, err := exec.LookPath(name); err != nil {
			continue
		}
		save, err := run(ctx, "", name)
		wrong = append(wrong, err)
		for _, rule := range translating(string(save)) {
			found = append(found, other.tool(ipv6, "")+" -t nat "+rule)
		}
	}
	if _, err := exec.LookPath("nft"); err == nil {
		rules, err := run(ctx, "", "nft", "--terse", "list", "ruleset")
		wrong = append(wrong, err)
		found = append(found, natives(string(rules))...)
	}
	if err := errors.Join(wrong...); err != nil {
		return found, fmt.Errorf("look for masquerades of others: %w", err)
	}
	return found, nil
}

// translating lists the rules of others in the nat table that translate a source
// and can be reached from POSTROUTING.
func translating(save string) []string {
	_, nat, _ := strings.Cut(save, "*nat\n")
	nat, _, _ = strings.Cut(nat, "\nCOMMIT")
	reached, todo := map[string]bool{"POSTROUTING": true}, []string{"POSTROUTING"}
	rules := map[string][][]string{}
	for line := range strings.Lines(nat) {
		if f := strings.Fields(line); len(f) > 2 && f[0] == "-A" {
			rules[f[1]] = append(rules[f[1]], f)
		}
	}
	var found []string
	for len(todo) > 0 {
		chain := todo[0]
		todo = todo[1:]
		if strings.HasPrefix(chain, chainPrefix) {
			continue
		}
		for _, f := range rules[chain] {
			to := targetOf(f)
			switch {
			case to == "MASQUERADE" || to == "SNAT" || to == "NETMAP":
				found = append(found, strings.Join(f, " "))
			case to != "" && !reached[to]:
				reached[to], todo = true, append(todo, to)
			}
		}
	}
	return found
}

func targetOf(f []string) string {
	for i, w := range f[:len(f)-1] {
		if w == "-j" || w == "-g" {
			return f[i+1]
		}
	}
	return ""
}

// xtables are the tables that iptables-nft keeps its rules in.
var xtables = []string{"filter", "nat", "mangle", "raw", "security"}

// natives lists what translates sources in nft tables of others that have a NAT
// chain in postrouting no later than iptables' own.
func natives(ruleset string) []string {
	var found, pending []string
	var table, chain string
	early := false
	flush := func() {
		if early {
			found = append(found, pending...)
		}
		pending, early = nil, false
	}
	for line := range strings.Lines(ruleset) {
		f := strings.Fields(line)
		switch {
		case len(f) == 4 && f[0] == "table":
			flush()
			table = f[1] + " " + f[2]
			if f[1] == "arp" || f[1] == "bridge" || f[1] == "netdev" || strings.HasPrefix(f[2], setPrefix) || (f[1] != "inet" && slices.Contains(xtables, f[2])) {
				table = ""
			}
		case len(f) == 3 && f[0] == "chain":
			chain = f[1]
		case table == "":
		case strings.Contains(line, "type nat hook postrouting priority "):
			_, prio, _ := strings.Cut(line, "priority ")
			prio, _, _ = strings.Cut(prio, ";")
			early = early || priority(prio) <= srcnat
		case slices.Contains(f, "masquerade"), slices.Contains(f, "snat"):
			pending = append(pending, "nft table "+table+", chain "+chain+": "+strings.Join(f, " "))
		}
	}
	flush()
	return found
}

// srcnat is NF_IP_PRI_NAT_SRC of include/uapi/linux/netfilter_ipv4.h.
const srcnat = 100

// priority reads "srcnat", "srcnat - 5", "95".
func priority(s string) int {
	f := strings.Fields(strings.Replace(s, "srcnat", strconv.Itoa(srcnat), 1))
	if len(f) == 0 {
		return srcnat
	}
	n, err := strconv.Atoi(f[0])
	if err != nil {
		return srcnat // a name we do not know: better named in vain than not at all
	}
	if len(f) == 3 {
		d, _ := strconv.Atoi(f[2])
		if f[1] == "-" {
			d = -d
		}
		n += d
	}
	return n
}
