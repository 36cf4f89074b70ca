package gossip

import (
	"net/netip"
	"slices"
	"time"
)

const (
	// forgetAfter is the silence after which a peer that is no Join address is
	// no longer sent to; leftFor is the same after a graceful leave.
	forgetAfter = time.Hour
	leftFor     = time.Minute
	// maxPeers bounds what holders of the key can make this member send to.
	maxPeers = 256
)

// book is every address a member may be at.
type book struct {
	self   string
	addr   netip.AddrPort
	peers  map[netip.AddrPort]*peer
	byName map[string]*peer
}

type peer struct {
	addr    netip.AddrPort
	name    string        // "" until heard of
	join    bool          // a Join address
	host    string        // the Join host name, or peers, that it comes from now
	living  []string      // names that memberlist holds alive there; another may have come to a dead one's host
	missing time.Time     // since when not alive
	heard   time.Time     // last message or answered probe
	rtt     time.Duration // of the last answered probe
	left    time.Time     // graceful leave
	joining bool          // a join is under way
	refused string        // why the last join did not succeed
}

func newBook(self string, addr netip.AddrPort) book {
	return book{self: self, addr: addr, peers: map[netip.AddrPort]*peer{}, byName: map[string]*peer{}}
}

// wanted says that a member is meant to be there: it is never forgotten.
func (p *peer) wanted() bool { return p.join || p.host != "" }

// enter gives the peer at an address; nil for this member itself.
func (b *book) enter(addr netip.AddrPort, now time.Time) *peer {
	if addr == b.addr {
		return nil
	}
	p := b.peers[addr]
	if p == nil {
		p = &peer{addr: addr, missing: now}
		b.peers[addr] = p
	}
	return p
}

// addJoin enters a configured address.
func (b *book) addJoin(addr netip.AddrPort, now time.Time) {
	if p := b.enter(addr, now); p != nil {
		p.join = true
	}
}

// resolved replaces the addresses of a Join host name, or the peers.
func (b *book) resolved(host string, addrs []netip.AddrPort, now time.Time) {
	for _, p := range b.peers {
		if p.host == host && !slices.Contains(addrs, p.addr) {
			p.host = ""
		}
	}
	for _, a := range addrs {
		if p := b.enter(a, now); p != nil {
			p.host = host
		}
	}
}

// learn enters that a member is at an address, and nowhere else.
func (b *book) learn(name string, addr netip.AddrPort, now time.Time) *peer {
	if addr == b.addr || name == b.self {
		return nil
	}
	p := b.peers[addr]
	if p == nil {
		if len(b.peers) >= maxPeers {
			return nil
		}
		p = &peer{addr: addr, missing: now}
		b.peers[addr] = p
	}
	if p.name != name {
		if b.byName[p.name] == p {
			delete(b.byName, p.name)
		}
		p.name = name
	}
	if old := b.byName[name]; old != nil && old != p {
		// It stays while memberlist still thinks it alive there.
		old.name = ""
		if !old.wanted() && !old.alive() {
			delete(b.peers, old.addr)
		}
	}
	b.byName[name] = p
	p.heard, p.left = now, time.Time{}
	return p
}

// joined enters that memberlist holds a member alive.
func (b *book) joined(name string, addr netip.AddrPort, now time.Time) (changed bool) {
	p := b.peers[addr]
	if p == nil || p.name == "" {
		p = b.learn(name, addr, now)
	}
	if p == nil || slices.Contains(p.living, name) {
		return false
	}
	p.living, p.refused = append(p.living, name), ""
	return true
}

// gone enters that memberlist holds the member at addr no longer alive.
func (b *book) gone(name string, addr netip.AddrPort, now time.Time) (changed bool) {
	p := b.peers[addr]
	if p == nil || !slices.Contains(p.living, name) {
		return false
	}
	if p.living = slices.DeleteFunc(p.living, func(n string) bool { return n == name }); !p.alive() {
		p.missing = now
	}
	return true
}

// alive is memberlist's opinion.
func (p *peer) alive() bool { return len(p.living) > 0 }

func (b *book) isAlive(addr netip.AddrPort) bool {
	p := b.peers[addr]
	return p != nil && p.alive()
}

// lives is memberlist's opinion of one member at an address.
func (b *book) lives(name string, addr netip.AddrPort) bool {
	p := b.peers[addr]
	return p != nil && slices.Contains(p.living, name)
}

// forget drops peers that are gone for long.
func (b *book) forget(now time.Time) {
	for addr, p := range b.peers {
		gone := p.name == "" || now.Sub(p.heard) > forgetAfter || !p.left.IsZero() && now.Sub(p.left) > leftFor
		if p.wanted() || p.alive() || !gone {
			continue
		}
		delete(b.peers, addr)
		if b.byName[p.name] == p {
			delete(b.byName, p.name)
		}
	}
}

// addrs are all peers, whatever their state.
func (b *book) addrs() []netip.AddrPort {
	addrs := make([]netip.AddrPort, 0, len(b.peers))
	for a := range b.peers {
		addrs = append(addrs, a)
	}
	return addrs
}

// at is the peer with an IP address, if there is just one; a stream's port says
// nothing about its member.
func (b *book) at(ip netip.Addr) *peer {
	var found *peer
	for _, p := range b.peers {
		if p.addr.Addr() == ip {
			if found != nil {
				return nil
			}
			found = p
		}
	}
	return found
}

// sorted are the peers in a stable order.
func (b *book) sorted() []*peer {
	out := make([]*peer, 0, len(b.peers))
	for _, p := range b.peers {
		out = append(out, p)
	}
	slices.SortFunc(out, func(x, y *peer) int { return x.addr.Compare(y.addr) })
	return out
}
