package nft

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/netfilter"
)

// families whose rules IPv4 packets can meet.
var families = map[family]string{
	ipv4: "ip", unix.NFPROTO_INET: "inet", unix.NFPROTO_BRIDGE: "bridge", unix.NFPROTO_NETDEV: "netdev",
}

// Others says what the rules of others write into marks and zones, chain by chain.
// It sees the rules of iptables-nft as well, and decodes what the kernel has: nft's
// own listing shows them in words that change with its version.
func Others() ([]netfilter.Writes, error) {
	found := map[place]*netfilter.Writes{}
	for f := range families {
		err := everyRule(f, func(at place, expressions string) error {
			rule, err := writes(expressions)
			if err != nil || rule.mark == 0 && len(rule.zones) == 0 {
				return err
			}
			w := found[at]
			if w == nil {
				w = &netfilter.Writes{Where: fmt.Sprintf("nftables table %s %s, chain %s", families[f], at.table, at.chain)}
				found[at] = w
			}
			w.Mark |= rule.mark
			w.Zones = append(w.Zones, rule.zones...)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	var list []netfilter.Writes
	for at, w := range found {
		if !ours(at.table, at.chain) {
			list = append(list, *w)
		}
	}
	slices.SortFunc(list, func(a, b netfilter.Writes) int { return cmp.Compare(a.Where, b.Where) })
	return list, nil
}

// place is where a rule stands.
type place struct {
	family       family
	table, chain string
}

// everyRule visits the rules of a family, whosever they are, with what each says.
func everyRule(f family, visit func(at place, expressions string) error) error {
	at, expressions := place{family: f}, ""
	var bad error
	err := request(unix.NFT_MSG_GETRULE, f, unix.NLM_F_DUMP, nil, func(kind uint16, value string) error {
		switch kind {
		case unix.NFTA_RULE_TABLE:
			at.table = text(value)
		case unix.NFTA_RULE_CHAIN:
			at.chain = text(value)
		case unix.NFTA_RULE_EXPRESSIONS:
			expressions = value
		}
		return bad
	}, func() {
		if bad == nil {
			bad = visit(at, expressions)
		}
		at, expressions = place{family: f}, ""
	})
	if err := cmp.Or(err, bad); err != nil {
		return fmt.Errorf("read the rules of family %s: %w", families[f], err)
	}
	return nil
}

// ours are the tables of every version, and the chains of the iptables applier.
func ours(table, chain string) bool {
	return strings.HasPrefix(table, "sally") || strings.HasPrefix(chain, "SALLY-")
}

// effect is what a rule writes.
type effect struct {
	mark  uint32
	zones []uint16
}

// register is what a rule has in a register: a mark, and the bits of it that are no
// longer those that were loaded.
type register struct {
	of      string // "meta" or "ct": whose mark it was
	changed uint32
	value   string // of an immediate
}

// into says which bits writing the register to a mark can change.
func (r register) into(of string) uint32 {
	if r.of != of {
		return all
	}
	return r.changed
}

const all = ^uint32(0)

// writes runs one rule's expressions over registers of "changed bits". What it does
// not know it takes for a change of all: better a chain named in vain than missed.
func writes(expressions string) (effect, error) {
	var e effect
	regs := map[uint32]register{}
	err := each(expressions, func(_ uint16, element string) error {
		var name string
		attrs := map[uint16]string{}
		err := each(element, func(kind uint16, value string) error {
			switch kind {
			case unix.NFTA_EXPR_NAME:
				name = text(value)
			case unix.NFTA_EXPR_DATA:
				return each(value, func(kind uint16, value string) error {
					attrs[kind] = value
					return nil
				})
			}
			return nil
		})
		e.expression(name, attrs, regs)
		return err
	})
	return e, err
}

func (e *effect) expression(name string, attrs map[uint16]string, regs map[uint32]register) {
	num := func(kind uint16) uint32 { return be32(attrs[kind]) }
	mark := name == "meta" && num(unix.NFTA_META_KEY) == unix.NFT_META_MARK ||
		name == "ct" && num(unix.NFTA_CT_KEY) == unix.NFT_CT_MARK
	load := func(dreg uint16) {
		regs[num(dreg)] = register{}
		if mark {
			regs[num(dreg)] = register{of: name}
		}
	}
	switch name {
	case "cmp", "counter", "match", "limit", "log", "range":
	case "meta":
		switch _, set := attrs[unix.NFTA_META_SREG]; {
		case !set:
			load(unix.NFTA_META_DREG)
		case mark:
			e.mark |= regs[num(unix.NFTA_META_SREG)].into(name)
		}
	case "ct":
		switch _, set := attrs[unix.NFTA_CT_SREG]; {
		case !set:
			load(unix.NFTA_CT_DREG)
		case mark:
			e.mark |= regs[num(unix.NFTA_CT_SREG)].into(name)
		case num(unix.NFTA_CT_KEY) == unix.NFT_CT_ZONE:
			if v := regs[num(unix.NFTA_CT_SREG)].value; len(v) >= 2 {
				e.zones = append(e.zones, binary.NativeEndian.Uint16([]byte(v)))
			}
		}
	case "immediate":
		regs[num(unix.NFTA_IMMEDIATE_DREG)] = register{value: dataValue(attrs[unix.NFTA_IMMEDIATE_DATA])}
	case "bitwise":
		r := regs[num(unix.NFTA_BITWISE_SREG)]
		mask, xor := dataValue(attrs[unix.NFTA_BITWISE_MASK]), dataValue(attrs[unix.NFTA_BITWISE_XOR])
		if len(mask) == 4 && len(xor) == 4 {
			r.changed = r.changed&native32(mask) | ^native32(mask) | native32(xor)
		} else { // a shift, or two registers
			r = register{}
		}
		regs[num(unix.NFTA_BITWISE_DREG)] = r
	case "target":
		e.target(text(attrs[unix.NFTA_TARGET_NAME]), num(unix.NFTA_TARGET_REV), attrs[unix.NFTA_TARGET_INFO])
	default:
		clear(regs)
	}
}

// target is one of iptables', with its struct of include/uapi/linux/netfilter/xt_*.h.
func (e *effect) target(name string, revision uint32, info string) {
	word := func(i int) uint32 {
		if len(info) < 4*i+4 {
			return 0
		}
		return native32(info[4*i : 4*i+4])
	}
	const set = 0 // XT_CONNMARK_SET
	mode := 12
	if revision > 1 {
		mode = 14 // behind the shift
	}
	switch {
	case name == "MARK", name == "TPROXY": // mark and mask, in either order
		e.mark |= word(0) | word(1)
	case name == "CONNMARK" && len(info) > mode && info[mode] == set:
		e.mark |= word(0) | word(1)
	case name == "CONNMARK": // one mark copied to the other
		e.mark |= word(1) | word(2)
	case name == "CT" && len(info) >= 4:
		if zone := binary.NativeEndian.Uint16([]byte(info[2:4])); zone != 0 {
			e.zones = append(e.zones, zone)
		}
	}
}

func dataValue(data string) (v string) {
	_ = each(data, func(kind uint16, value string) error {
		if kind == unix.NFTA_DATA_VALUE {
			v = value
		}
		return nil
	})
	return v
}

func native32(v string) uint32 { return binary.NativeEndian.Uint32([]byte(v)) }
