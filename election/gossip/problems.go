package gossip

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Problem is something a user can cure that keeps members apart. Its text is the
// same as long as it lasts.
type Problem struct {
	Object  string // "Member name" or "Member address", "Join address host"
	Reason  Reason
	Message string // what is wrong and what to do about it
}

// Reason classifies a Problem in one CamelCase word.
type Reason string

// Reasons of Problems.
const (
	NameTaken     Reason = "NameTaken"     // two members of one name
	WrongKey      Reason = "WrongKey"      // another gossip key
	Unreachable   Reason = "Unreachable"   // a Join address does not answer
	OtherProtocol Reason = "OtherProtocol" // no member of this version
	TooLarge      Reason = "TooLarge"      // a payload larger than a datagram
)

const (
	// problemFor is how long a problem outlives its last evidence. Peers try again
	// every one to two seconds, so that a lasting problem does not flicker.
	problemFor = 5 * time.Second
	// strayFor is how long evidence must go on to become a problem: single strays
	// come with a port scan or in the moment a key is changed.
	strayFor = time.Second
	// maxEvidence bounds what strangers can make this member remember.
	maxEvidence = 64
)

type evidence struct {
	problem     Problem
	peer        netip.AddrPort // whom it explains, for Unreachable not to say it again
	first, last time.Time
	after       time.Duration // how long evidence must have gone on
}

type problems map[string]*evidence

func newProblems() problems { return problems{} }

func (ps problems) note(p Problem, peer netip.AddrPort, after time.Duration, now time.Time) {
	key := string(p.Reason) + " " + p.Object
	e := ps[key]
	if e == nil || now.Sub(e.last) > problemFor {
		if e == nil && len(ps) >= maxEvidence {
			ps.expire(now)
			if len(ps) >= maxEvidence {
				return
			}
		}
		e = &evidence{first: now}
		ps[key] = e
	}
	e.problem, e.peer, e.last, e.after = p, peer, now, after
}

func (ps problems) expire(now time.Time) {
	for key, e := range ps {
		if now.Sub(e.last) > problemFor {
			delete(ps, key)
		}
	}
}

func (e *evidence) holds(now time.Time) bool {
	return now.Sub(e.last) <= problemFor && e.last.Sub(e.first) >= e.after
}

// currentProblems needs mu.
func (g *Gossip) currentProblems(now time.Time) []Problem {
	g.problems.expire(now)
	var out []Problem
	explained := map[netip.AddrPort]bool{}
	strangers, agreeing := 0, 0
	for _, e := range g.problems {
		if e.holds(now) {
			out = append(out, e.problem)
			explained[e.peer] = true
			if e.problem.Reason == WrongKey {
				strangers++
			}
		}
	}
	for _, p := range g.unresolved {
		out = append(out, p)
	}
	for _, p := range g.book.sorted() {
		if p.alive() {
			agreeing++
		}
		if p.wanted() && !p.alive() && p.refused != "" && !explained[p.addr] && now.Sub(p.missing) >= g.cfg.UnreachableAfter {
			out = append(out, Problem{
				Object: memberName(p.name, p.addr), Reason: Unreachable,
				Message: fmt.Sprintf("gossip address %s does not answer: %s", p.addr, p.refused),
			})
		}
	}
	if strangers > 1 && agreeing == 0 {
		out = append(out, Problem{
			Object: memberName(g.cfg.Name, g.cfg.Bind), Reason: WrongKey,
			Message: fmt.Sprintf("no member that is heard uses the gossip key of this one (fingerprint %s): it is probably this one's key file that is wrong", g.KeyFingerprint()),
		})
	}
	slices.SortFunc(out, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Object, b.Object), cmp.Compare(a.Message, b.Message))
	})
	return out
}

// noteNamesakes needs mu.
func (g *Gossip) noteNamesakes(name string, a, b netip.AddrPort, now time.Time) {
	if a == b {
		return
	}
	if b.Compare(a) < 0 {
		a, b = b, a
	}
	message := fmt.Sprintf("two members are named %s, at %s and at %s: give one of them another name (--node-name, or --name)", name, a, b)
	if name == g.cfg.Name {
		message += "; until then the younger keeps silent"
	}
	g.problems.note(Problem{
		Object: "Member " + name, Reason: NameTaken, Message: message,
	}, netip.AddrPort{}, g.cfg.ConflictAfter, now)
}

func (g *Gossip) noteTooLarge(limit int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.problems.note(Problem{
		Object: memberName(g.cfg.Name, g.cfg.Bind), Reason: TooLarge,
		// No size in the text: it would change with every message.
		Message: fmt.Sprintf("payloads of more than %d bytes were not sent, they do not fit in a datagram of %d: hold fewer VIPs in one group, or raise the datagram size where the network's MTU allows", limit, g.cfg.MaxDatagram),
	}, netip.AddrPort{}, 0, time.Now())
}

// noteStranger enters that messages from an address cannot be read.
func (g *Gossip) noteStranger(from netip.AddrPort, reason Reason, what string) {
	now := time.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	object, peer := "Member "+from.Addr().String(), from
	if p := g.book.peers[from]; p != nil {
		object = memberName(p.name, p.addr)
	} else if p := g.book.at(from.Addr()); p != nil {
		object, peer = memberName(p.name, p.addr), p.addr
	}
	g.problems.note(Problem{Object: object, Reason: reason, Message: what}, peer, strayFor, now)
}

func (g *Gossip) noteWrongKey(from netip.AddrPort) {
	g.noteStranger(from, WrongKey, fmt.Sprintf(
		"uses another gossip key than this member (%s, fingerprint %s), neither accepts the other's messages: put the same key file on every member",
		g.cfg.Name, g.KeyFingerprint()))
}

func memberName(name string, addr netip.AddrPort) string {
	return strings.TrimSpace("Member " + cmp.Or(name, addr.String()))
}
