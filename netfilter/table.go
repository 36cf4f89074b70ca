// Package netfilter is the rule model that steering and translation are written
// in once, and that the appliers nft and iptables carry into the kernel. It is
// pure data plus the arithmetic both appliers share.
package netfilter

import (
	"net/netip"
	"slices"
)

// Table is everything one program wants in one address family. An applier makes
// the kernel equal to it in one step, so that no packet meets half of it.
type Table struct {
	// Name must start with "sally"; it is what makes the objects recognisable as
	// ours. At most 16 characters: ipset names have 31.
	Name        string
	IPv6        bool
	Sets        []Set
	Classifiers []Classifier
	// Counters lists every counter named in the rules, so that one that never
	// counted reads zero rather than missing.
	Counters []string
	Chains   []Chain
}

// Set is a set of single addresses.
type Set struct {
	Name  string
	Addrs []netip.Addr // sorted, unique
	// Frees says that what is in the set is let through where all else is held. An
	// applier that cannot change everything at once fills it after the rules and the
	// other sets, and empties it before them.
	Frees bool
}

// Hook is where a base chain is attached; "" is a regular chain, reached by Goto.
type Hook string

// The hooks that both appliers have. The priorities are those of
// include/uapi/linux/netfilter_ipv4.h; PostroutingNAT lies at 95, before every
// masquerade at 100: the first chain to bind a connection wins.
const (
	PreroutingRaw    Hook = "prerouting-raw"
	OutputRaw        Hook = "output-raw"
	PreroutingMangle Hook = "prerouting-mangle"
	InputFilter      Hook = "input-filter"
	ForwardFilter    Hook = "forward-filter"
	ForwardMangle    Hook = "forward-mangle"
	PostroutingNAT   Hook = "postrouting-nat"
)

// Chain is a list of rules. A packet that reaches the end of a base chain goes on
// as if the chain were not there; at the end of a regular chain likewise, since
// such a chain is only ever reached by Goto from a base chain or by Goto from a
// chain so reached.
type Chain struct {
	Name  string
	Hook  Hook
	Early bool // before the chains of our other tables at the same hook
	Rules []Rule
}

// Rule is what happens to the packets that match: first they are counted, then
// the action is taken.
type Rule struct {
	Match  Match
	Count  string // counter, "" for none
	Action Action
	Why    string // for the reader of a listing, short, no quotes
}

// Match is the conjunction of its fields that are set; the zero Match is every packet.
type Match struct {
	In, NotIn   string // input interface
	Out, NotOut string // output interface

	Src, Dst  netip.Addr
	SrcNet    netip.Prefix // source is in the range
	SrcSet    string
	NotSrcSet string // source is not in the set
	DstSet    string
	DstLocal  bool // destination is an address of this host (fib type local)

	Protocol Protocols
	SrcPorts Ports  // needs Protocol
	DstPort  uint16 // needs Protocol

	State     State
	Direction Direction
	Mark      *Masked
	ConnMark  *Masked
	// NotMark matches when the masked bits differ from the value.
	NotMark     *Masked
	NotConnMark *Masked
	// Unselected names a Classifier that has no class for the source. It is valid
	// only behind a Classify of that classifier in the same chain.
	Unselected string
}

// Masked is a value under a mask, in a packet's or a connection's mark.
type Masked struct{ Value, Mask uint32 }

// Protocols is a choice of transport protocols by their IANA names in lower case:
// one of "tcp", "udp", "sctp", "icmp", "icmpv6".
type Protocols []string

// Ports is an inclusive range; the zero value is every port.
type Ports struct{ First, Last uint16 }

// State is a connection-tracking state.
type State string

// The states that rules ask for.
const (
	New State = "new"
	// Established are packets of a connection that has seen both directions. What is
	// related to one, or exempt from tracking, is in none of these states.
	Established State = "established"
	Invalid     State = "invalid"
)

// Direction of a packet within its connection.
type Direction string

// The two directions.
const (
	Original Direction = "original"
	Reply    Direction = "reply"
)

// Action is one of the types below; nil only counts.
type Action interface{ action() }

type (
	// Return ends our chains at this hook for the packet, which goes on to the
	// chains of others.
	Return struct{}
	// Drop discards the packet.
	Drop struct{}
	// Goto continues in a regular chain and does not come back.
	Goto struct{ Chain string }
	// SetMark replaces the masked bits of the packet's mark, leaving the others.
	SetMark Masked
	// SetConnMark replaces the masked bits of the connection's mark.
	SetConnMark Masked
	// Zone puts the packet in a connection-tracking zone (raw hooks only).
	Zone struct{ ID uint16 }
	// NoTrack exempts the packet from connection tracking (raw hooks only).
	NoTrack struct{}
	// SNAT translates the source; Ports bounds the ports used, and a source port
	// within them that is free is kept.
	SNAT struct {
		To    netip.Addr
		Ports Ports
	}
	// KeepSource binds the connection to the source it already has, so that no
	// later masquerade translates it.
	KeepSource struct{}
	// ClampMSS lowers the MSS of TCP SYNs to the path's (needs Protocol tcp).
	ClampMSS struct{}
	// Classify looks the packet up. A hit either goes to the chain that To names
	// for the value, or, where To is nil, replaces the connection's whole mark by
	// the value and goes on; a miss goes on.
	Classify struct {
		By string
		To map[uint32]string
	}
	// CountConnMark counts the packet in the counter named for the connection's
	// mark under Mask: Names maps the masked value to the counter.
	CountConnMark struct {
		Mask  uint32
		Names map[uint32]string
	}
)

func (Return) action()        {}
func (Drop) action()          {}
func (Goto) action()          {}
func (SetMark) action()       {}
func (SetConnMark) action()   {}
func (Zone) action()          {}
func (NoTrack) action()       {}
func (SNAT) action()          {}
func (KeepSource) action()    {}
func (ClampMSS) action()      {}
func (Classify) action()      {}
func (CountConnMark) action() {}

// Classifier finds the one Target for a packet's (source, destination, protocol,
// destination port). Sources share classes, so that its size follows the number
// of different selections and not the number of pods.
type Classifier struct {
	Name string
	// Sources are those that have a class, sorted by address, of which none is there twice.
	Sources []Source
	// Classes hold the targets of their sources, in order of precedence among
	// targets of equal prefix length and equal kind (with ports or without).
	Classes [][]Target
	// Others are the targets of every source that is not in Sources; none: nothing
	// is found for those.
	Others []Target
}

// Source is an address and its class, an index into Classes.
type Source struct {
	Addr  netip.Addr
	Class int
}

// SourcesOf are the sources with the classes given.
func SourcesOf(classes map[netip.Addr]int) []Source {
	sources := make([]Source, 0, len(classes))
	for addr, class := range classes {
		sources = append(sources, Source{addr, class})
	}
	slices.SortFunc(sources, func(a, b Source) int { return a.Addr.Compare(b.Addr) })
	return sources
}

// Target is one destination. Where several match a packet, the longest prefix
// wins, then the one with ports, then the first.
type Target struct {
	CIDR   netip.Prefix
	Except []netip.Prefix
	Ports  []ProtocolPorts // none: every protocol and port
	Value  uint32          // not zero
}

// ProtocolPorts is a range of ports of one transport protocol (IANA number).
type ProtocolPorts struct {
	Protocol uint8
	Ports    Ports
}

// Counts is a reading of a counter.
type Counts struct {
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}
