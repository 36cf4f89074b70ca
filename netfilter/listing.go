package netfilter

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Listing writes the table for a reader, the same table always the same.
func (t Table) Listing() string {
	var b strings.Builder
	family := "ipv4"
	if t.IPv6 {
		family = "ipv6"
	}
	fmt.Fprintf(&b, "table %s (%s)\n", t.Name, family)
	for _, s := range t.Sets {
		fmt.Fprintf(&b, "set %s: %s\n", s.Name, join(s.Addrs))
	}
	for _, c := range t.Classifiers {
		fmt.Fprintf(&b, "classifier %s\n", c.Name)
		for _, src := range c.Sources {
			fmt.Fprintf(&b, "  %s is of class %d\n", src.Addr, src.Class)
		}
		for i, targets := range c.Classes {
			fmt.Fprintf(&b, "  class %d\n", i)
			for _, t := range targets {
				fmt.Fprintf(&b, "    %s\n", t)
			}
		}
		if len(c.Others) > 0 {
			b.WriteString("  others\n")
		}
		for _, t := range c.Others {
			fmt.Fprintf(&b, "    %s\n", t)
		}
	}
	fmt.Fprintf(&b, "counters: %s\n", strings.Join(t.CounterNames(), " "))
	for _, c := range t.Chains {
		fmt.Fprintf(&b, "chain %s", c.Name)
		if c.Hook != "" {
			fmt.Fprintf(&b, " at %s", c.Hook)
		}
		if c.Early {
			b.WriteString(", early")
		}
		b.WriteString("\n")
		for _, r := range c.Rules {
			fmt.Fprintf(&b, "  %s\n", r)
		}
	}
	return b.String()
}

func (t Target) String() string {
	s := t.CIDR.String()
	if len(t.Except) > 0 {
		s += " except " + join(t.Except)
	}
	for _, p := range t.Ports {
		s += fmt.Sprintf(" %d/%s", p.Protocol, p.Ports)
	}
	return fmt.Sprintf("%s: %#x", s, t.Value)
}

func (p Ports) String() string { return fmt.Sprintf("%d-%d", p.First, p.Last) }

func (m Masked) String() string { return fmt.Sprintf("%#x/%#x", m.Value, m.Mask) }

// String is the rule on one line: what matches, then what happens, then why.
func (r Rule) String() string {
	parts := []string{r.Match.String()}
	if r.Count != "" {
		parts = append(parts, "count "+r.Count)
	}
	if a := actionText(r.Action); a != "" {
		parts = append(parts, a)
	}
	s := strings.TrimSpace(strings.Join(parts, " -> "))
	if r.Why != "" {
		s += "  # " + r.Why
	}
	return s
}

func (m Match) String() string {
	var parts []string
	add := func(set bool, format string, args ...any) {
		if set {
			parts = append(parts, fmt.Sprintf(format, args...))
		}
	}
	add(m.In != "", "in %s", m.In)
	add(m.NotIn != "", "in not %s", m.NotIn)
	add(m.Out != "", "out %s", m.Out)
	add(m.NotOut != "", "out not %s", m.NotOut)
	add(m.Src.IsValid(), "from %s", m.Src)
	add(m.SrcNet.IsValid(), "from %s", m.SrcNet)
	add(m.SrcSet != "", "from %s", m.SrcSet)
	add(m.NotSrcSet != "", "from not %s", m.NotSrcSet)
	add(m.Dst.IsValid(), "to %s", m.Dst)
	add(m.DstSet != "", "to %s", m.DstSet)
	add(m.DstLocal, "to this host")
	add(len(m.Protocol) > 0, "%s", strings.Join(m.Protocol, "|"))
	add(m.SrcPorts != Ports{}, "source port %s", m.SrcPorts)
	add(m.DstPort != 0, "port %d", m.DstPort)
	add(m.State != "", "%s", m.State)
	add(m.Direction != "", "%s direction", m.Direction)
	for _, v := range []struct {
		what string
		mark *Masked
	}{{"mark", m.Mark}, {"mark not", m.NotMark}, {"connmark", m.ConnMark}, {"connmark not", m.NotConnMark}} {
		if v.mark != nil {
			add(true, "%s %s", v.what, *v.mark)
		}
	}
	add(m.Unselected != "", "source not in %s", m.Unselected)
	if len(parts) == 0 {
		return "all"
	}
	return strings.Join(parts, ", ")
}

func actionText(a Action) string {
	switch a := a.(type) {
	case nil:
		return ""
	case Return:
		return "return"
	case Drop:
		return "drop"
	case Goto:
		return "goto " + a.Chain
	case SetMark:
		return "mark " + Masked(a).String()
	case SetConnMark:
		return "connmark " + Masked(a).String()
	case Zone:
		return fmt.Sprintf("zone %d", a.ID)
	case NoTrack:
		return "no tracking"
	case SNAT:
		if a.Ports == (Ports{}) {
			return "snat " + a.To.String()
		}
		return fmt.Sprintf("snat %s ports %s", a.To, a.Ports)
	case KeepSource:
		return "keep source"
	case ClampMSS:
		return "clamp mss"
	case Classify:
		return "classify by " + a.By + numbered(a.To)
	case CountConnMark:
		return fmt.Sprintf("count connmark/%#x%s", a.Mask, numbered(a.Names))
	}
	return fmt.Sprintf("%T", a)
}

func numbered(names map[uint32]string) string {
	var s string
	for _, v := range slices.Sorted(maps.Keys(names)) {
		s += fmt.Sprintf(" %#x:%s", v, names[v])
	}
	return s
}

func join[T fmt.Stringer](list []T) string {
	parts := make([]string, 0, len(list))
	for _, v := range list {
		parts = append(parts, v.String())
	}
	return strings.Join(parts, " ")
}
