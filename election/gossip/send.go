package gossip

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/hashicorp/memberlist"
)

// Errors of Send and Broadcast to be told apart.
var (
	ErrTooLarge  = errors.New("payload does not fit in a datagram")
	ErrNameTaken = errors.New("another member has this one's name")
	ErrUnknown   = errors.New("no address is known")
)

// datagramOverhead is memberlist's: label header, encryption version, nonce and tag,
// message type.
const datagramOverhead = 2 + len(label) + 1 + 12 + 16 + 1

// MaxPayload is the size in bytes of the largest payload.
func (g *Gossip) MaxPayload() int {
	return g.cfg.MaxDatagram - datagramOverhead - frameOverhead(g.cfg.Name, g.cfg.Bind)
}

// Send sends one datagram to a member by name; it may be lost.
func (g *Gossip) Send(to string, payload []byte) error {
	g.mu.Lock()
	p := g.book.byName[to]
	var addr netip.AddrPort
	if p != nil {
		addr = p.addr
	}
	g.mu.Unlock()
	if p == nil {
		return fmt.Errorf("send gossip to %s: %w", to, ErrUnknown)
	}
	return g.transmit(data, payload, addr)
}

// Broadcast sends one datagram to every peer known, be it alive or not; each may
// be lost. What cannot be sent to one peer is still sent to the others.
func (g *Gossip) Broadcast(payload []byte) error {
	return g.broadcast(data, payload)
}

func (g *Gossip) broadcast(k kind, payload []byte) error {
	g.mu.Lock()
	to := g.book.addrs()
	g.mu.Unlock()
	return g.transmit(k, payload, to...)
}

func (g *Gossip) transmit(k kind, payload []byte, to ...netip.AddrPort) error {
	list := g.list.Load()
	if list == nil {
		return ErrNotRunning
	}
	if limit := g.MaxPayload(); len(payload) > limit {
		g.counts.sendErrors.Add(1)
		g.noteTooLarge(limit)
		return fmt.Errorf("send gossip of %d bytes, at most %d are possible: %w", len(payload), limit, ErrTooLarge)
	}
	if k == data && g.muted() {
		g.counts.sendErrors.Add(1)
		return fmt.Errorf("send gossip as %s: %w", g.cfg.Name, ErrNameTaken)
	}
	f := frame{kind: k, age: time.Since(g.started), addr: g.cfg.Bind, name: g.cfg.Name, payload: payload}
	msg := f.append(make([]byte, 0, frameOverhead(f.name, f.addr)+len(payload)))
	var errs []error
	for _, addr := range to {
		// A node of our own making spares memberlist a look-up under its lock, and a
		// checksum that the encryption already is.
		node := &memberlist.Node{Addr: net.IP(addr.Addr().AsSlice()), Port: addr.Port()}
		g.keys.RLock()
		err := list.SendBestEffort(node, msg)
		g.keys.RUnlock()
		if err != nil {
			g.counts.sendErrors.Add(1)
			errs = append(errs, fmt.Errorf("send gossip to %s: %w", addr, err))
			continue
		}
		g.counts.sent.Add(1)
	}
	return errors.Join(errs...)
}

// muted says whether the name of this member is an elder member's.
func (g *Gossip) muted() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return time.Now().Before(g.names.muted)
}
