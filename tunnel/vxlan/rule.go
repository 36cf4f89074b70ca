package vxlan

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/tunnel"
)

// listedRule is an ip rule as the kernel lists it.
type listedRule struct {
	tunnel.Rule
	protocol uint8
	odd      bool   // it selects by something ours never do
	message  []byte // sent back, it deletes this rule
}

// rules lists the ip rules of a family with our protocol.
func (c *conn) rules(family uint8) ([]listedRule, error) {
	list, err := c.allRules(family)
	return slices.DeleteFunc(list, func(r listedRule) bool { return r.protocol != Protocol }), err
}

// allRules lists the ip rules of a family; the kernel cannot filter them.
func (c *conn) allRules(family uint8) ([]listedRule, error) {
	// A struct fib_rule_hdr has the layout of a struct rtmsg, its action in the
	// place of the type (include/uapi/linux/fib_rules.h).
	msg := &nl.RtMsg{RtMsg: unix.RtMsg{Family: family}}
	var list []listedRule
	err := c.dump(unix.RTM_GETRULE, body(msg), func() { list = nil }, func(b []byte) {
		if len(b) < unix.SizeofRtMsg || b[0] != family {
			return
		}
		list = append(list, decodeRule(b))
	})
	if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) && !errors.Is(err, unix.EOPNOTSUPP) {
		return nil, fmt.Errorf("list ip rules: %w", err)
	}
	return list, nil
}

func decodeRule(b []byte) listedRule {
	h := nl.DeserializeRtMsg(b)
	r := listedRule{
		Rule:    tunnel.Rule{Table: int(h.Table)},
		odd:     h.Type != unix.FR_ACT_TO_TBL || h.Dst_len != 0 || h.Src_len != 0 || h.Tos != 0 || h.Flags != 0,
		message: bytes.Clone(b),
	}
	for typ, data := range attributes(b[unix.SizeofRtMsg:]) {
		switch typ {
		case unix.FRA_PRIORITY:
			r.Priority = int(asU32(data))
		case unix.FRA_FWMARK:
			r.Value = asU32(data)
		case unix.FRA_FWMASK:
			r.Mask = asU32(data)
		case unix.FRA_TABLE:
			r.Table = int(asU32(data))
		case unix.FRA_PROTOCOL:
			if len(data) > 0 {
				r.protocol = data[0]
			}
		case unix.FRA_SUPPRESS_PREFIXLEN, unix.FRA_SUPPRESS_IFGROUP:
			r.odd = r.odd || asU32(data) != 1<<32-1
		case unix.FRA_IIFNAME, unix.FRA_OIFNAME, unix.FRA_FLOW, unix.FRA_TUN_ID, unix.FRA_L3MDEV,
			unix.FRA_UID_RANGE, unix.FRA_IP_PROTO, unix.FRA_SPORT_RANGE, unix.FRA_DPORT_RANGE:
			r.odd = true
		}
	}
	return r
}

func ruleString(r tunnel.Rule) string {
	return fmt.Sprintf("ip rule %d: fwmark %#x/%#x lookup %d", r.Priority, r.Value, r.Mask, r.Table)
}

func addRule(r tunnel.Rule) request {
	msg := &nl.RtMsg{RtMsg: unix.RtMsg{Family: unix.AF_INET, Type: unix.FR_ACT_TO_TBL}}
	return request{
		typ: unix.RTM_NEWRULE, flags: unix.NLM_F_CREATE | unix.NLM_F_EXCL,
		what: func() string { return "add " + ruleString(r) },
		body: body(msg,
			attr(unix.FRA_PRIORITY, u32(r.Priority)),
			attr(unix.FRA_FWMARK, nl.Uint32Attr(r.Value)),
			attr(unix.FRA_FWMASK, nl.Uint32Attr(r.Mask)),
			attr(unix.FRA_TABLE, u32(r.Table)),
			attr(unix.FRA_PROTOCOL, []byte{Protocol}),
		),
	}
}

func deleteRule(r listedRule) request {
	return request{
		typ: unix.RTM_DELRULE, body: r.message, gone: []unix.Errno{unix.ENOENT},
		vague: r.odd || r.Value == 0, // a mark of 0 is not listed
		what:  func() string { return "remove " + ruleString(r.Rule) },
	}
}
