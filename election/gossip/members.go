package gossip

import (
	"cmp"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"
)

// Member is what is known of one member or Join address.
type Member struct {
	Name      string // "" for a Join address that never answered
	Addr      netip.AddrPort
	Self      bool
	Alive     bool          // memberlist's opinion: for display, not for an election
	LastHeard time.Time     // zero: never
	RTT       time.Duration // of the last answered probe, zero: none
}

// Members are this one and all peers known, by name, then address.
func (g *Gossip) Members() []Member {
	out := []Member{{Name: g.cfg.Name, Addr: g.cfg.Bind, Self: true, Alive: g.list.Load() != nil, LastHeard: time.Now()}}
	g.mu.Lock()
	for _, p := range g.book.peers {
		out = append(out, Member{Name: p.name, Addr: p.addr, Alive: p.alive(), LastHeard: p.heard, RTT: p.rtt})
	}
	g.mu.Unlock()
	slices.SortFunc(out, func(a, b Member) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), a.Addr.Compare(b.Addr))
	})
	return out
}

// Counts since the start, for metrics.
type Counts struct {
	Sent, SendErrors         uint64 // payloads, one per destination
	Received                 uint64 // payloads handed to Messages
	Dropped                  uint64 // of those, lost to a lagging reader
	Refused                  uint64 // frames malformed or of a name that is another member's
	Undecryptable            uint64 // datagrams and streams of another key
	BytesSent, BytesReceived uint64 // UDP payload, memberlist's own traffic included
}

type counters struct {
	sent, sendErrors, received, dropped, refused atomic.Uint64
	undecryptable, bytesSent, bytesReceived      atomic.Uint64
}

// Counts of this member.
func (g *Gossip) Counts() Counts {
	c := &g.counts
	return Counts{
		Sent: c.sent.Load(), SendErrors: c.sendErrors.Load(),
		Received: c.received.Load(), Dropped: c.dropped.Load(), Refused: c.refused.Load(),
		Undecryptable: c.undecryptable.Load(),
		BytesSent:     c.bytesSent.Load(), BytesReceived: c.bytesReceived.Load(),
	}
}
