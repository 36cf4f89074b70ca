package gossip

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	resolveEvery = 10 * time.Second
	wakePause    = 250 * time.Millisecond // between rejoins that a dead peer's message asks for
)

// rejoin looks for missing peers until ctx ends: memberlist does not search for
// members it has buried, so that after a partition its halves stay apart.
func (g *Gossip) rejoin(ctx context.Context, list *memberlist.Memberlist, tasks *sync.WaitGroup) {
	told := map[Problem]bool{}
	var resolved time.Time
	timer := time.NewTimer(0)
	defer timer.Stop()
	var last time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-g.wake:
			if time.Since(last) < wakePause {
				continue // the next one comes with the peer's next message
			}
		}
		now := time.Now()
		last = now
		if now.Sub(resolved) >= resolveEvery {
			resolved = now
			tasks.Go(func() { g.resolve(ctx) })
		}
		for _, addr := range g.missing(now) {
			tasks.Go(func() { g.join(list, addr) })
		}
		// A member restarted on another address sees the others, who refused it while
		// its old self was not yet buried, and do not know where to look; an elder
		// namesake answers, and this one stays silent.
		_ = g.broadcast(presence, nil)
		g.tellProblems(told)
		pause := g.cfg.RejoinEvery
		timer.Reset(pause + rand.N(pause))
	}
}

// missing are the peers to join now, marked as being joined.
func (g *Gossip) missing(now time.Time) []netip.AddrPort {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.book.forget(now)
	g.names.forget(now)
	var addrs []netip.AddrPort
	for _, p := range g.book.sorted() {
		if !p.alive() && !p.joining {
			p.joining = true
			addrs = append(addrs, p.addr)
		}
	}
	return addrs
}

// join exchanges state with one address. The first exchange between two that have
// buried each other only brings both to refute their death, under a new incarnation
// number; the next carries that. Waiting for gossip would take until the dead
// are gossiped to, which ends after GossipToTheDead.
func (g *Gossip) join(list *memberlist.Memberlist, addr netip.AddrPort) {
	var err error
	for range 3 {
		if _, err = list.Join([]string{addr.String()}); err != nil || g.isAlive(addr) {
			break
		}
	}
	if err != nil && strings.Contains(err.Error(), wrongKeyText) {
		g.counts.undecryptable.Add(1)
		g.noteWrongKey(addr)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if p := g.book.peers[addr]; p != nil {
		p.joining = false
		p.refused = joinCause(err)
	}
}

func (g *Gossip) isAlive(addr netip.AddrPort) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.book.isAlive(addr)
}

// joinCause says why a join did not succeed, without the ports and durations that
// make each error text another one.
func joinCause(err error) string {
	if err == nil {
		return ""
	}
	text := err.Error()
	switch {
	case strings.Contains(text, "connection refused"):
		return "the host refuses the connection; start its gateway, or correct the address"
	case strings.Contains(text, "timeout"), strings.Contains(text, "deadline"):
		return "no answer; the host is down, the address is wrong, or a firewall is in between (TCP and UDP must pass)"
	case strings.Contains(text, "no route to host"):
		return "no route to the host, or it is down"
	case strings.Contains(text, "network is unreachable"), strings.Contains(text, "network is down"):
		return "this host has no working route there"
	case strings.Contains(text, "not permitted"):
		return "this host's own firewall forbids it"
	default:
		return "the connection was closed; it may be no gateway, or one of another version or key"
	}
}

// resolve looks up the Join host names.
func (g *Gossip) resolve(ctx context.Context) {
	for _, j := range g.cfg.Join {
		if _, ok := literal(j, g.cfg.Bind.Port()); ok {
			continue
		}
		host, port, err := splitJoin(j, g.cfg.Bind.Port())
		if err != nil {
			continue // Validate has refused it
		}
		lookup, cancel := context.WithTimeout(ctx, 2*time.Second)
		ips, err := net.DefaultResolver.LookupNetIP(lookup, "ip", host)
		cancel()
		if ctx.Err() != nil {
			return
		}
		g.enter(host, port, ips, err)
	}
}

func (g *Gossip) enter(host string, port uint16, ips []netip.Addr, err error) {
	now := time.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	key := "Join address " + host
	if err != nil {
		// What it resolved to before stays: the name service may be what is down.
		cause := err.Error()
		var dns *net.DNSError
		if errors.As(err, &dns) {
			cause = dns.Err
		}
		g.unresolved[host] = Problem{
			Object: key, Reason: Unreachable,
			Message: fmt.Sprintf("host name %s cannot be resolved (%s): correct it, or give addresses", host, cause),
		}
		return
	}
	delete(g.unresolved, host)
	addrs := make([]netip.AddrPort, len(ips))
	for i, ip := range ips {
		addrs[i] = unmap(netip.AddrPortFrom(ip, port))
	}
	g.book.resolved(host, addrs, now)
}

// peers stands in a book for the host name that SetPeers' addresses come from.
const peers = "(peers)"

// SetPeers replaces the members to find besides those of Join, each at Bind's port.
// It may contain this member itself, and may be called before Run.
func (g *Gossip) SetPeers(addrs []netip.Addr) {
	g.enter(peers, g.cfg.Bind.Port(), addrs, nil)
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// tellProblems logs which problems came and which ceased.
func (g *Gossip) tellProblems(told map[Problem]bool) {
	now := map[Problem]bool{}
	for _, p := range g.Problems() {
		now[p] = true
		if !told[p] {
			told[p] = true
			g.log.Warn("gossip problem", "object", p.Object, "reason", string(p.Reason), "message", p.Message)
		}
	}
	for p := range told {
		if !now[p] {
			delete(told, p)
			g.log.Info("gossip problem ended", "object", p.Object, "reason", string(p.Reason))
		}
	}
}
