package nft

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/sallyport/sallyport/netfilter"
)

// line is one rule of nft: its text, and the comment it carries into the kernel,
// which begins with a digest of the text. What the kernel gives back of a rule
// cannot be compared with a text, the digest can.
type line struct{ text, comment string }

func newLine(text, why string) line {
	sum := sha256.Sum256([]byte(text))
	comment := hex.EncodeToString(sum[:6])
	if why = strings.ReplaceAll(why, `"`, "'"); why != "" {
		comment += " " + why
	}
	return line{text: text, comment: comment[:min(len(comment), 120)]}
}

// lines is a rule of the model as rules of nft.
func (w *wanted) lines(r netfilter.Rule) ([]line, error) {
	match := w.match(r.Match)
	if r.Count != "" {
		match = append(match, "counter name "+quote(objectName(r.Count)))
	}
	join := func(parts ...string) string {
		return strings.Join(append(match[:len(match):len(match)], parts...), " ")
	}
	switch a := r.Action.(type) {
	case nil:
		if len(match) == 0 {
			return nil, nil
		}
		return []line{newLine(join(), r.Why)}, nil
	case netfilter.Classify:
		return w.classify(r, a)
	case netfilter.CountConnMark:
		return []line{newLine(join(fmt.Sprintf("counter name ct mark and %#x map @%s", a.Mask, countMap(a))), r.Why)}, nil
	default:
		text, err := w.action(a)
		return []line{newLine(join(text), r.Why)}, err
	}
}

// match puts first what costs the kernel least and spares most packets the rest:
// every packet that the host forwards, ours or not, meets the rules up to there. A
// register's compare is nearly free, an interface's name is a copied string, a
// set is a hash, and fib is a look-up in the routing table.
func (w *wanted) match(m netfilter.Match) []string {
	var parts []string
	add := func(set bool, format string, args ...any) {
		if set {
			parts = append(parts, fmt.Sprintf(format, args...))
		}
	}
	masked := func(what string, v *netfilter.Masked, op string) {
		if v != nil {
			add(true, "%s and %#x %s %#x", what, v.Mask, op, v.Value)
		}
	}
	masked("meta mark", m.Mark, "==")
	masked("meta mark", m.NotMark, "!=")
	add(m.SrcNet.IsValid() && m.SrcNet.Bits() > 0, "%s saddr %s", w.family, m.SrcNet.Masked())
	add(m.Src.IsValid(), "%s saddr %s", w.family, m.Src)
	add(m.Dst.IsValid(), "%s daddr %s", w.family, m.Dst)
	add(len(m.Protocol) == 1, "meta l4proto %s", protocols(m.Protocol))
	add(len(m.Protocol) > 1, "meta l4proto { %s }", protocols(m.Protocol))
	add(m.SrcPorts != netfilter.Ports{}, "th sport %d-%d", m.SrcPorts.First, m.SrcPorts.Last)
	add(m.DstPort != 0, "th dport %d", m.DstPort)
	add(m.State == netfilter.New, "ct state new")
	add(m.State == netfilter.Established, "ct state established")
	add(m.State == netfilter.Invalid, "ct state invalid")
	add(m.Direction != "", "ct direction %s", m.Direction)
	masked("ct mark", m.ConnMark, "==")
	masked("ct mark", m.NotConnMark, "!=")
	add(m.Unselected != "", "meta priority 0")
	add(m.In != "", "iifname %s", quote(m.In))
	add(m.NotIn != "", "iifname != %s", quote(m.NotIn))
	add(m.Out != "", "oifname %s", quote(m.Out))
	add(m.NotOut != "", "oifname != %s", quote(m.NotOut))
	add(m.SrcSet != "", "%s saddr @%s", w.family, objectName(m.SrcSet))
	add(m.NotSrcSet != "", "%s saddr != @%s", w.family, objectName(m.NotSrcSet))
	add(m.DstSet != "", "%s daddr @%s", w.family, objectName(m.DstSet))
	add(m.DstLocal, "fib daddr type local")
	return parts
}

// protocols writes them as nft's database of names has them.
func protocols(p netfilter.Protocols) string {
	return strings.ReplaceAll(strings.Join(p, ", "), "icmpv6", "ipv6-icmp")
}

func (w *wanted) action(a netfilter.Action) (string, error) {
	switch a := a.(type) {
	case netfilter.Return:
		return "return", nil
	case netfilter.Drop:
		return "drop", nil
	case netfilter.Goto:
		return "goto " + objectName(a.Chain), nil
	case netfilter.SetMark:
		return setMark("meta mark", netfilter.Masked(a)), nil
	case netfilter.SetConnMark:
		return setMark("ct mark", netfilter.Masked(a)), nil
	case netfilter.Zone:
		return fmt.Sprintf("ct zone set %d", a.ID), nil
	case netfilter.NoTrack:
		return "notrack", nil
	case netfilter.SNAT:
		to := a.To.String()
		if a.Ports == (netfilter.Ports{}) {
			return "snat to " + to, nil
		}
		if a.To.Is6() {
			to = "[" + to + "]"
		}
		return fmt.Sprintf("snat to %s:%d-%d", to, a.Ports.First, a.Ports.Last), nil
	case netfilter.KeepSource:
		return fmt.Sprintf("snat to %s saddr", w.family), nil
	case netfilter.ClampMSS:
		return "tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu", nil
	}
	return "", fmt.Errorf("action %T is none that nftables is known to carry out", a)
}

func setMark(what string, m netfilter.Masked) string {
	text := fmt.Sprintf("%s set %s and %#x", what, what, ^m.Mask)
	if m.Mask == 0xffffffff {
		return fmt.Sprintf("%s set %#x", what, m.Value)
	}
	if m.Value != 0 {
		text += fmt.Sprintf(" or %#x", m.Value)
	}
	return text
}

// ported are the protocols whose packets begin with a source and a destination
// port. Others are looked up without: what they carry there is something else.
const ported = "{ tcp, udp, sctp }"

// classify is a look-up of the source's class, and with it of the destination. The
// class travels in the packet's priority: net/ipv4/ip_forward.c overwrites that for
// every packet it forwards, so nobody misses what was in it. A source of no class is
// spared the dearer look-up.
func (w *wanted) classify(r netfilter.Rule, a netfilter.Classify) ([]line, error) {
	match := strings.Join(w.match(r.Match), " ")
	first := match
	if r.Count != "" {
		first += " counter name " + quote(objectName(r.Count))
	}
	unclassed := "0"
	if w.others[a.By] {
		unclassed = classText(othersClass)
	}
	use, look := "vmap", ""
	if a.To == nil {
		use, look = "map", "ct mark set "
	}
	texts := []string{
		first + " meta priority set " + unclassed,
		fmt.Sprintf("%s meta priority set %s saddr map @%s", match, w.family, sourcesMap(a.By)),
		fmt.Sprintf("%s meta priority != 0 meta l4proto %s %smeta priority . %s daddr . meta l4proto . th dport %s @%s", match, ported, look, w.family, use, portsMap(a.By)),
		fmt.Sprintf("%s meta priority != 0 meta l4proto != %s %smeta priority . %s daddr %s @%s", match, ported, look, w.family, use, hostsMap(a.By)),
	}
	var lines []line
	for i, text := range texts {
		why := ""
		if i == 0 {
			why = r.Why
		}
		lines = append(lines, newLine(strings.TrimSpace(text), why))
	}
	return lines, nil
}

func sourcesMap(classifier string) string { return classifier + "-sources" }
func portsMap(classifier string) string   { return classifier + "-ports" }
func hostsMap(classifier string) string   { return classifier + "-hosts" }

func countMap(a netfilter.CountConnMark) string { return fmt.Sprintf("counters-%x", a.Mask) }

func quote(s string) string { return `"` + s + `"` }
