package election

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// again is how soon what a hand-over waits for is said again, at the latest: packets wait for it,
// whatever the profile.
const again = 20 * time.Millisecond

func (t Timing) again() time.Duration { return min(t.Heartbeat/2, again) }

// bequest is a VIP that was handed over and has not been seen held since.
type bequest struct {
	heir  string // "": there is none
	term  uint64
	at    time.Duration // when it is said again
	until time.Duration // when it is left to the others
}

// Offer asks all voters which of them would hold the VIP in this member's place:
// Status has who would. It does nothing where this member does not hold.
func (m *Machine) Offer(now time.Duration, vip string) Ready {
	now = m.advance(now)
	m.run(now)
	if c := m.contest(vip); c != nil && c.stage == holding {
		c.ask(now, Offer, c.held)
	}
	return m.flush()
}

// HandOver gives the VIP up for heir to take it at once. It is an election like any
// other, in which nobody has to wait for silence and only the heir stands at first:
// what keeps two from holding is what always does. The heir is to have taken an Offer.
func (m *Machine) HandOver(now time.Duration, vip, heir string) (Ready, error) {
	now = m.advance(now)
	m.run(now)
	c := m.contest(vip)
	switch {
	case c == nil || c.stage != holding:
		return m.flush(), fmt.Errorf("hand %s over to %s: it is not held here", vip, heir)
	case !slices.Contains(c.willingNow(), heir):
		return m.flush(), fmt.Errorf("hand %s over to %s: %[2]s did not say lately that it would hold it", vip, heir)
	}
	c.bequest = bequest{heir: heir, term: max(c.held, c.bid), at: now, until: now + m.cfg.Timing.Lease}
	c.lose(now, handedOver)
	c.boundUntil = min(c.boundUntil, now)
	c.at = now + m.cfg.Timing.Lease + c.stagger()
	c.remind(now)
	return m.flush(), nil
}

// remind says that the VIP was handed over, and says so again until somebody holds
// it: were the heir not to hear it, all would wait for a lease to end.
func (c *contest) remind(now time.Duration) {
	switch b := &c.bequest; {
	case b.heir == "":
	case c.holder.id != "" || now >= b.until:
		*b = bequest{}
	case now >= b.at:
		b.at = now + c.m.cfg.Timing.again()
		c.ask(now, Release, b.term)
		c.m.out.toAll[len(c.m.out.toAll)-1].Heir = b.heir
	}
}

// onOffer says whether this member would hold, were its holder to give up.
func (c *contest) onOffer(msg Message, e Entry) {
	if c.m.why == "" && c.barred == "" && c.m.seated(msg.From) && c.holder.by(msg.From, msg.Incarnation) {
		c.answer(msg, Entry{Kind: Accept, Term: e.Term, Sent: e.Sent})
	}
}

// willingNow are the voters that took an offer of the last lease.
func (c *contest) willingNow() []string {
	var ids []string
	for _, id := range slices.Sorted(maps.Keys(c.taken)) {
		if c.m.seated(id) && c.m.fresh(id) && c.m.last-c.taken[id] < c.m.cfg.Timing.Lease {
			ids = append(ids, id)
		}
	}
	return ids
}

// inherit has the heir ask for votes at once, without canvassing, and everybody else
// let it.
func (c *contest) inherit(now time.Duration, from tenure, heir string) {
	c.term = max(c.term, from.term)
	switch {
	case c.stage == holding || c.stage == standing:
	case heir != c.m.cfg.ID:
		c.at = max(c.at, now+c.m.cfg.Timing.Lease/2+c.stagger())
	case c.barred == "" && c.m.why == "" && !c.bound(now, c.m.cfg.ID, c.m.cfg.Incarnation):
		c.inherits = true
		c.bidFor(now)
		if c.stage == standing { // its request may have overtaken the release
			c.at = min(c.at, now+c.m.cfg.Timing.Spread/4)
		}
	}
}
