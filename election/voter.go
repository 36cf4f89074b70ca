package election

import "time"

// onRequest answers a candidate.
func (c *contest) onRequest(now time.Duration, msg Message, e Entry) {
	candidate := tenure{msg.From, msg.Incarnation, e.Term}
	if e.Kind == Vote && c.stage == standing && before(c.vip, msg.From, c.m.cfg.ID) {
		// The votes are split. The one ranked lower lets go, or both would wait for
		// promises that nobody makes use of.
		c.giveUp(now)
		c.at = now + c.stagger()
	}
	again := e.Kind == Vote && c.voted == candidate && e.Term == c.term && e.Sent > c.heard
	switch {
	case c.bound(now, msg.From, msg.Incarnation):
		c.answer(msg, Entry{Kind: Refuse, Term: c.term, Sent: e.Sent, Wait: c.boundUntil - now})
	case c.outlived(candidate), c.voted == candidate && e.Sent <= c.heard:
		// Overtaken or doubled on the way: it must not prolong the promise.
	case e.Term <= c.term && !again:
		c.answer(msg, Entry{Kind: Refuse, Term: c.term, Sent: e.Sent})
	case e.Kind == Canvass:
		c.answer(msg, Entry{Kind: Favour, Term: e.Term, Sent: e.Sent})
	default:
		if c.stage != resting {
			c.giveUp(now)
		}
		c.term, c.voted = e.Term, candidate
		c.promise(now, candidate)
		c.heard = e.Sent
		c.at = c.boundUntil + c.stagger()
		c.answer(msg, Entry{Kind: Grant, Term: e.Term, Sent: e.Sent})
	}
}

// onHeartbeat promises a holder another lease.
func (c *contest) onHeartbeat(now time.Duration, msg Message, e Entry) {
	holder := tenure{msg.From, msg.Incarnation, e.Term}
	if c.outlived(holder) {
		return
	}
	votes := c.m.why == ""
	if votes && !c.m.seated(msg.From) {
		return
	}
	if e.Term < c.term {
		if votes {
			c.answer(msg, Entry{Kind: Refuse, Term: c.term, Sent: e.Sent})
		}
		return
	}
	if c.stage == standing {
		c.giveUp(now) // somebody has won; the own promise binds no longer
	}
	if c.bound(now, msg.From, msg.Incarnation) {
		return
	}
	if c.promised == holder && e.Sent <= c.heard && votes {
		return // overtaken or doubled on the way: it must not prolong the promise
	}
	c.term, c.stage, c.tries = e.Term, resting, 0
	c.holderUntil = now + c.m.cfg.Timing.Lease
	c.setHolder(now, holder, saysSo)
	if votes {
		c.promise(now, holder)
		c.heard = e.Sent
		c.answer(msg, Entry{Kind: Ack, Term: e.Term, Sent: e.Sent})
	}
	c.at = c.holderUntil + c.stagger()
}

// onRelease ends the promise to exactly the one that let go.
func (c *contest) onRelease(now time.Duration, by tenure, heir string) {
	if heir == c.m.cfg.ID && c.stage == holding {
		c.beats = true // it is said again by one that has not heard so
	}
	if c.outlived(by) {
		return
	}
	c.released = by
	if c.promised.by(by.id, by.incarnation) && c.promised.term <= by.term && now < c.boundUntil {
		c.boundUntil = now
		c.at = now + c.stagger()
	}
	if c.holder.by(by.id, by.incarnation) && c.holder.term <= by.term {
		c.alive = now
		c.setHolder(now, tenure{term: c.term}, gaveUp)
		c.at = now + c.stagger()
	}
	if heir != "" {
		c.inherit(now, by, heir)
	}
}

// outlived is whether the tenure is known to have been given up.
func (c *contest) outlived(t tenure) bool {
	return c.released.by(t.id, t.incarnation) && t.term <= c.released.term
}
