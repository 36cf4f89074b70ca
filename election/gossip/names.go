package gossip

import (
	"net/netip"
	"time"
)

const (
	// nameHold is how long a name stays with the address last heard under it. A vote
	// counts by name: were two members of one name both believed, each could give
	// that vote to another candidate.
	nameHold = time.Second
	// muteFor is how long a member keeps silent after it heard an elder namesake.
	muteFor = 3 * time.Second
	// elderMargin is the difference of ages below which transit times could decide,
	// differently on both sides; the lower address decides instead.
	elderMargin = time.Second
)

// names knows which address speaks for which name.
type names struct {
	self  namesake
	bound map[string]binding
	muted time.Time // until when this member's own name is an elder's
	told  time.Time // when a younger namesake was last told so
}

// namesake is one that uses a name. The elder keeps it, so that all who hear both
// agree; ages are in frames, for clocks differ.
type namesake struct {
	addr netip.AddrPort
	born time.Time // on this host's clock
}

type binding struct {
	namesake
	heard time.Time
}

func newNames(addr netip.AddrPort, born time.Time) names {
	return names{self: namesake{addr, born}, bound: map[string]binding{}}
}

func (n namesake) elderThan(other namesake) bool {
	if n.born.Sub(other.born).Abs() < elderMargin {
		return n.addr.Compare(other.addr) < 0
	}
	return n.born.Before(other.born)
}

// admit says whether a message may count as the named member's; if the name was
// another address's until now, contested is that one. alive is whether memberlist
// thinks so of the member at that other address, where another may be by now.
func (n *names) admit(name string, from namesake, alive func(string, netip.AddrPort) bool, now time.Time) (contested netip.AddrPort, ok bool) {
	b, known := n.bound[name]
	if known && b.addr != from.addr && (now.Sub(b.heard) < nameHold || alive(name, b.addr)) {
		contested = b.addr
		if !from.elderThan(b.namesake) {
			return contested, false
		}
	}
	if !known && len(n.bound) >= maxPeers {
		return contested, false
	}
	n.bound[name] = binding{from, now}
	return contested, true
}

// release gives up a name whose member left.
func (n *names) release(name string) { delete(n.bound, name) }

// forget drops names not heard for long.
func (n *names) forget(now time.Time) {
	for name, b := range n.bound {
		if now.Sub(b.heard) > forgetAfter {
			delete(n.bound, name)
		}
	}
}

// own takes note of another member with this one's name, and says whether that one
// is to be told that it is the younger.
func (n *names) own(other namesake, now time.Time) (tell bool) {
	if other.elderThan(n.self) {
		n.muted = now.Add(muteFor)
		return false
	}
	if now.Sub(n.told) < 50*time.Millisecond {
		return false
	}
	n.told = now
	return true
}
