package iptables

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/sallyport/sallyport/netfilter"
)

// hooks says where a hook lies in iptables.
var hooks = map[netfilter.Hook]struct{ table, chain string }{
	netfilter.PreroutingRaw:    {"raw", "PREROUTING"},
	netfilter.OutputRaw:        {"raw", "OUTPUT"},
	netfilter.PreroutingMangle: {"mangle", "PREROUTING"},
	netfilter.InputFilter:      {"filter", "INPUT"},
	netfilter.ForwardFilter:    {"filter", "FORWARD"},
	netfilter.ForwardMangle:    {"mangle", "FORWARD"},
	netfilter.PostroutingNAT:   {"nat", "POSTROUTING"},
}

// renderer turns one table into a program.
type renderer struct {
	in          netfilter.Table
	setNames    map[string]string
	classifiers map[string]*finder
	chains      map[string][]rule // by kernel name
	regular     map[string]string // kernel names of regular chains by their own
	excepts     map[string]string // sets of exceptions by digest
	tallies     []netfilter.CountConnMark
	sets        []set
	// generation is appended to the name of a set: the rules name the set that the
	// kernel has, or is to get.
	generation func(set) string
}

// render is the pure half of Apply. Everything wrong with the table is reported.
func render(t netfilter.Table, generation func(set) string) (program, error) {
	if err := checkTable(t.Name); err != nil {
		return program{}, err
	}
	if err := t.Validate(); err != nil {
		return program{}, err
	}
	r := &renderer{
		in: t, generation: generation, setNames: map[string]string{}, classifiers: map[string]*finder{},
		chains: map[string][]rule{}, regular: map[string]string{}, excepts: map[string]string{},
	}
	var wrong []error
	for _, s := range t.Sets {
		for _, a := range s.Addrs {
			if a.Is6() != t.IPv6 {
				wrong = append(wrong, fmt.Errorf("set %s: address %s is of the other family", s.Name, a))
			}
		}
		r.setNames[s.Name] = r.addSet(set{name: setName(t.Name, t.IPv6, s.Name, false), addrs: s.Addrs, frees: s.Frees})
	}
	for _, c := range t.Classifiers {
		f, err := r.finder(c)
		wrong = append(wrong, err)
		r.classifiers[c.Name] = f
	}
	for _, name := range t.CounterNames() {
		if !word.MatchString(name) {
			wrong = append(wrong, fmt.Errorf("counter %q: the name must be of letters, digits and _ . : / -", name))
		}
	}
	for _, c := range t.Chains {
		if c.Hook == "" {
			r.regular[c.Name] = chainName(t.Name, c.Name, false)
		}
	}
	p := program{table: t.Name, ipv6: t.IPv6, counters: t.CounterNames(),
		chains: map[string]map[string][]rule{}, jumps: map[string]map[string][]jump{}}
	for _, c := range t.Chains {
		wrong = append(wrong, r.chain(c))
	}
	for _, c := range t.Chains {
		at, known := hooks[c.Hook]
		if !known {
			if c.Hook != "" {
				wrong = append(wrong, fmt.Errorf("chain %s: hook %q is unknown", c.Name, c.Hook))
			}
			continue
		}
		if p.jumps[at.table] == nil {
			p.jumps[at.table], p.chains[at.table] = map[string][]jump{}, map[string][]rule{}
		}
		name := chainName(t.Name, c.Name, false)
		p.jumps[at.table][at.chain] = append(p.jumps[at.table][at.chain], jump{chain: name, early: c.Early})
		r.reach(p.chains[at.table], name)
	}
	p.sets = r.sets
	if err := errors.Join(wrong...); err != nil {
		return program{}, fmt.Errorf("table %s as iptables rules: %w", t.Name, err)
	}
	return p, nil
}

// reach copies a chain and what it leads to into a kernel table.
func (r *renderer) reach(into map[string][]rule, name string) {
	if _, seen := into[name]; seen {
		return
	}
	into[name] = r.chains[name]
	for _, rule := range r.chains[name] {
		if rule.to != "" {
			r.reach(into, rule.to)
		}
	}
}

func (r *renderer) addSet(s set) string {
	s.name += r.generation(s)
	r.sets = append(r.sets, s)
	return s.name
}

// chain renders a chain, and what follows a Classify that goes elsewhere as a
// chain of its own: in iptables nothing reached by a jump can leave the chain
// that jumped, so the look-up is reached by goto and goes to what follows.
func (r *renderer) chain(c netfilter.Chain) error {
	name := chainName(r.in.Name, c.Name, false)
	if _, twice := r.chains[name]; twice {
		return fmt.Errorf("chain %s is there twice", c.Name)
	}
	r.chains[name] = nil
	raw := hooks[c.Hook].table == "raw"
	var wrong []error
	parts := 0
	for i, rule := range c.Rules {
		var site, rest string
		if by, is := rule.Action.(netfilter.Classify); is && by.To != nil {
			parts++
			site = fmt.Sprintf("%s/%d", c.Name, parts)
			if i+1 < len(c.Rules) {
				rest = chainName(r.in.Name, site, true)
			}
		}
		rules, err := r.rule(rule, site, rest, raw || c.Hook == "")
		if err != nil {
			wrong = append(wrong, fmt.Errorf("chain %s, rule %d: %w", c.Name, i+1, err))
		}
		r.chains[name] = append(r.chains[name], rules...)
		if rest != "" {
			r.chains[name] = append(r.chains[name], onTo(rest))
			name = rest
			r.chains[name] = nil
		}
	}
	return errors.Join(wrong...)
}

func onTo(chain string) rule { return rule{spec: "-g " + chain, to: chain} }

// rule renders one rule. Where the action narrows the match, or is several rules,
// the counting is a rule of its own.
func (r *renderer) rule(in netfilter.Rule, site, rest string, raw bool) ([]rule, error) {
	matches, err := r.match(in.Match)
	if err != nil {
		return nil, err
	}
	a, err := r.action(in.Action, in.Match, site, rest, raw)
	if err != nil {
		return nil, err
	}
	why := strings.Map(func(c rune) rune {
		if c < ' ' || strings.ContainsRune(`"'\`+"`", c) {
			return ' '
		}
		return c
	}, in.Why)
	var out []rule
	for _, m := range matches {
		count := in.Count
		if count != "" && a.match != "" {
			out = append(out, rule{spec: m, count: count, why: why})
			count = ""
		}
		if a.match == "" && a.target == "" && count == "" {
			continue
		}
		out = append(out, rule{spec: join(nonEmpty(m, a.match, a.target)), count: count, why: why, to: a.to})
	}
	return out, nil
}

func nonEmpty(s ...string) args {
	return slices.DeleteFunc(s, func(p string) bool { return p == "" })
}

// target is an action: what it adds to the match, the target, and the chain of
// ours it leads to.
type target struct{ match, target, to string }

func (r *renderer) action(in netfilter.Action, m netfilter.Match, site, rest string, raw bool) (target, error) {
	switch a := in.(type) {
	case nil:
		return target{}, nil
	case netfilter.Return:
		return target{target: "-j RETURN"}, nil
	case netfilter.Drop:
		return target{target: "-j DROP"}, nil
	case netfilter.Goto:
		to := r.regular[a.Chain]
		return target{target: "-g " + to, to: to}, nil
	case netfilter.SetMark:
		return target{target: fmt.Sprintf("-j MARK --set-xmark %#x/%#x", a.Value&a.Mask, a.Mask)}, nil
	case netfilter.SetConnMark:
		return target{target: fmt.Sprintf("-j CONNMARK --set-xmark %#x/%#x", a.Value&a.Mask, a.Mask)}, nil
	case netfilter.Zone:
		if !raw {
			return target{}, errors.New("a zone is given in a raw hook only")
		}
		return target{target: fmt.Sprintf("-j CT --zone %d", a.ID)}, nil
	case netfilter.NoTrack:
		if !raw {
			return target{}, errors.New("tracking is ended in a raw hook only")
		}
		return target{target: "-j CT --notrack"}, nil
	case netfilter.SNAT:
		return r.snat(a, m)
	case netfilter.KeepSource:
		// A mask of 0 keeps every bit of the address; that the connection now has
		// its translation keeps every later rule and chain from giving it another.
		if r.in.IPv6 {
			return target{target: "-j NETMAP --to ::/0"}, nil
		}
		return target{target: "-j NETMAP --to 0.0.0.0/0"}, nil
	case netfilter.ClampMSS:
		if !slices.Equal(m.Protocol, netfilter.Protocols{"tcp"}) {
			return target{}, errors.New("the MSS is clamped of protocol tcp only")
		}
		return target{match: "-m tcp --tcp-flags SYN,RST SYN", target: "-j TCPMSS --clamp-mss-to-pmtu"}, nil
	case netfilter.Classify:
		return r.classify(a, site, rest)
	case netfilter.CountConnMark:
		to := r.tally(a)
		return target{target: "-j " + to, to: to}, nil
	}
	return target{}, fmt.Errorf("action %T is unknown", in)
}

func (r *renderer) snat(a netfilter.SNAT, m netfilter.Match) (target, error) {
	if !a.To.IsValid() || a.To.Is6() != r.in.IPv6 {
		return target{}, fmt.Errorf("source %s to translate to is of the other family", a.To)
	}
	to := a.To.String()
	if a.Ports != (netfilter.Ports{}) {
		if len(m.Protocol) == 0 {
			return target{}, errors.New("a translation to a range of ports needs a protocol")
		}
		if a.To.Is6() {
			to = "[" + to + "]"
		}
		to = fmt.Sprintf("%s:%d-%d", to, max(a.Ports.First, 1), a.Ports.Last)
	}
	return target{target: "-j SNAT --to-source " + to}, nil
}
