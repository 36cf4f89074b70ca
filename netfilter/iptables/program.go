package iptables

import (
	"net/netip"
	"strings"
)

// program is a netfilter.Table in the terms of iptables and ipset.
type program struct {
	table    string
	ipv6     bool
	sets     []set
	chains   map[string]map[string][]rule // by kernel table and chain
	jumps    map[string]map[string][]jump // by kernel table and built-in chain
	counters []string
}

// set is a hash:ip set, or a hash:net set where Nets are given. Its name lacks the
// generation.
type set struct {
	name  string
	addrs []netip.Addr   // sorted
	nets  []netip.Prefix // sorted
	frees bool           // see netfilter.Set
}

// rule is one rule of a chain of ours.
type rule struct {
	spec  string // arguments, matches before target
	count string // counter the rule's packets are counted in
	why   string
	to    string // chain of ours that spec leads to
}

// comment tells the rule from any other, so that rules are compared by it and not
// by how a version of iptables-save spells them.
func (r rule) comment() string {
	c := commentPrefix + digest(r.spec+"\x00"+r.count+"\x00"+r.why, 5)
	if r.count != "" {
		c += " " + countPrefix + r.count
	}
	if r.why != "" {
		c += " " + r.why
	}
	return cut(c, 255) // XT_MAX_COMMENT_LEN is 256 with the final NUL
}

func (r rule) args() string {
	return strings.TrimSpace(`-m comment --comment "` + r.comment() + `" ` + r.spec)
}

const countPrefix = "count:"

// jump leads from a built-in chain into one of ours.
type jump struct {
	chain string
	early bool
}

func (j jump) rule() rule {
	r := rule{spec: "-j " + j.chain, to: j.chain}
	if j.early {
		r.why = earlyJump
	}
	return r
}

const earlyJump = "early"

// ledger is the chain that no packet reaches whose rules keep the counts of rules
// that have gone, and name the counters that no rule does.
const ledger = "counts/kept"

// commitOrder is the order in which kernel tables are changed. What keeps a packet
// from leaving the wrong way is in place before what marks it, and goes after.
var commitOrder = []string{"nat", "filter", "raw", "mangle"}
