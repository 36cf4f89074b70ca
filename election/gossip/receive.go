package gossip

import (
	"net/netip"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/sallyport/sallyport/election/boottime"
)

// Messages are the payloads of the other members. A reader that lags loses the
// oldest, never the newest.
func (g *Gossip) Messages() <-chan Message { return g.inbox }

// delegate is what memberlist calls. None of its methods waits for anything but mu,
// which nobody holds while waiting.
type delegate struct{ g *Gossip }

var (
	_ memberlist.Delegate         = delegate{}
	_ memberlist.EventDelegate    = delegate{}
	_ memberlist.ConflictDelegate = delegate{}
	_ memberlist.PingDelegate     = delegate{}
)

// NotifyMsg takes a frame out of a decrypted datagram.
func (d delegate) NotifyMsg(b []byte) {
	g, at := d.g, boottime.Now()
	f, err := parseFrame(b)
	if err != nil {
		g.counts.refused.Add(1)
		return
	}
	if !g.accept(f) || f.kind != data {
		return
	}
	g.counts.received.Add(1)
	m := Message{From: f.name, Addr: f.addr, At: at, Payload: append([]byte(nil), f.payload...)}
	for {
		select {
		case g.inbox <- m:
			return
		default:
		}
		select {
		case <-g.inbox:
			g.counts.dropped.Add(1)
		default:
		}
	}
}

// accept enters what a frame says about its sender, and says whether it is
// the member it names.
func (g *Gossip) accept(f frame) bool {
	now := time.Now()
	sender := namesake{f.addr, now.Add(-f.age)}
	if f.name == g.cfg.Name {
		if f.addr != g.cfg.Bind && g.hearNamesake(sender, now) {
			_ = g.transmit(presence, nil, f.addr) // lost, it is sent again with the next frame
		}
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	contested, ok := g.names.admit(f.name, sender, g.book.lives, now)
	if contested.IsValid() {
		g.noteNamesakes(f.name, contested, f.addr, now)
	}
	if !ok {
		g.counts.refused.Add(1)
		return false
	}
	p := g.book.learn(f.name, f.addr, now)
	if p == nil {
		return false
	}
	switch {
	case f.kind == leaving:
		p.left = now
		g.names.release(f.name)
	case !p.alive():
		select {
		case g.wake <- struct{}{}:
		default:
		}
	}
	return true
}

func (g *Gossip) hearNamesake(other namesake, now time.Time) (tell bool) {
	g.counts.refused.Add(1)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.noteNamesakes(g.cfg.Name, g.cfg.Bind, other.addr, now)
	return g.names.own(other, now)
}

// NotifyJoin is memberlist's opinion that a member is alive.
func (d delegate) NotifyJoin(n *memberlist.Node) {
	addr := addrOf(n)
	d.g.mu.Lock()
	changed := d.g.book.joined(n.Name, addr, time.Now())
	d.g.mu.Unlock()
	if changed {
		d.g.lines.say("member joined", "member", n.Name, "address", addr.String())
	}
}

// NotifyLeave is memberlist's opinion that a member is dead or has left.
func (d delegate) NotifyLeave(n *memberlist.Node) {
	addr := addrOf(n)
	d.g.mu.Lock()
	changed := d.g.book.gone(n.Name, addr, time.Now())
	d.g.mu.Unlock()
	if changed {
		d.g.lines.say("member gone", "member", n.Name, "address", addr.String())
	}
}

// NotifyUpdate is for node metadata, which is not used.
func (d delegate) NotifyUpdate(*memberlist.Node) {}

// NotifyConflict is a member that wants to join by the name of a living one.
func (d delegate) NotifyConflict(existing, other *memberlist.Node) {
	d.g.mu.Lock()
	defer d.g.mu.Unlock()
	d.g.noteNamesakes(existing.Name, addrOf(existing), addrOf(other), time.Now())
}

// NotifyPingComplete is an answered probe.
func (d delegate) NotifyPingComplete(n *memberlist.Node, rtt time.Duration, _ []byte) {
	d.g.mu.Lock()
	defer d.g.mu.Unlock()
	if p := d.g.book.peers[addrOf(n)]; p != nil {
		p.heard, p.rtt = time.Now(), rtt
	}
}

// What memberlist can carry besides is not used.

func (d delegate) NodeMeta(int) []byte             { return nil }
func (d delegate) GetBroadcasts(int, int) [][]byte { return nil }
func (d delegate) LocalState(bool) []byte          { return nil }
func (d delegate) MergeRemoteState([]byte, bool)   {}
func (d delegate) AckPayload() []byte              { return nil }

func addrOf(n *memberlist.Node) netip.AddrPort {
	addr, _ := netip.AddrFromSlice(n.Addr)
	return netip.AddrPortFrom(addr.Unmap(), n.Port)
}
