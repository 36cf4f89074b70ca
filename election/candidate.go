package election

import (
	"slices"
	"time"
)

// stand canvasses, or goes on canvassing. Asking first whether a vote could be
// won keeps a member that only it cannot hear the holder from raising terms.
func (c *contest) stand(now time.Duration) {
	if c.stage == resting {
		clear(c.granted)
		c.granted[c.m.cfg.ID] = true
	}
	c.stage = asking
	if c.won() {
		c.bidFor(now)
		return
	}
	c.canvassOrVote(now, Canvass, c.term+1)
}

func (c *contest) canvassOrVote(now time.Duration, kind Kind, term uint64) {
	c.ask(now, kind, term)
	if c.inherits { // for half a lease, in which nobody else stands
		c.at = now + c.m.cfg.Timing.again()
		return
	}
	// With losses it asks again soon, without a quorum ever more rarely.
	wait := min(c.m.cfg.Timing.Heartbeat/2<<min(c.tries, 8), c.m.cfg.Timing.Lease/2)
	c.tries++
	c.at = now + wait + c.m.jitter(wait)
}

// bidFor asks for votes in a new term, its own first.
func (c *contest) bidFor(now time.Duration) {
	c.term++
	c.bid = c.term
	c.tries = 0
	c.bidUntil = now + c.m.cfg.Timing.Lease/2
	clear(c.granted)
	c.granted[c.m.cfg.ID] = true
	c.voted = tenure{c.m.cfg.ID, c.m.cfg.Incarnation, c.bid}
	if c.stage == holding {
		c.beats = true
		return
	}
	c.stage = standing
	clear(c.acked)
	c.acked[c.m.cfg.ID] = now
	c.promise(now, c.voted)
	c.canvassOrVote(now, Vote, c.bid)
	c.settle(now)
}

func (c *contest) onAnswer(now time.Duration, from string, e Entry) {
	switch {
	case e.Kind == Refuse:
		c.onRefuse(now, e)
	case e.Kind == Favour && c.stage == asking && e.Term == c.term+1:
		c.granted[from] = true
		if c.won() {
			c.bidFor(now)
		}
	case e.Kind == Grant && c.bid != 0 && e.Term == c.bid:
		c.granted[from] = true
		c.acked[from] = max(c.acked[from], e.Sent)
		c.settle(now)
	case e.Kind == Accept && c.stage == holding && e.Term == c.held:
		c.taken[from] = max(c.taken[from], e.Sent)
	case e.Kind == Ack && c.stage == holding && e.Term == c.held:
		c.acked[from] = max(c.acked[from], e.Sent)
		c.renew(now, now-e.Sent)
	}
}

func (c *contest) onRefuse(now time.Duration, e Entry) {
	own, known := max(c.bid, c.held), c.term
	c.term = max(c.term, e.Term)
	switch {
	case c.stage == holding && e.Wait == 0 && e.Term > own:
		// The voter knows a newer term, of a candidacy that failed. It follows again
		// when this holder is elected in a still newer one.
		c.bidFor(now)
	case c.stage == standing && e.Wait == 0 && e.Term >= own:
		c.giveUp(now)
		c.at = now + c.m.jitter(c.m.cfg.Timing.Spread/4)
	case c.stage == asking:
		again := now + c.m.cfg.Timing.Spread/32 + c.m.jitter(c.m.cfg.Timing.Spread/8)
		if e.Wait > 0 {
			again += min(e.Wait, c.m.cfg.Timing.Lease)
		}
		if e.Wait > 0 || e.Term > known {
			c.at = min(c.at, again)
		}
	}
}

// giveUp ends a candidacy and tells its voters, who are then free at once.
func (c *contest) giveUp(now time.Duration) {
	if c.stage == standing {
		c.ask(now, Release, c.bid)
		c.boundUntil = min(c.boundUntil, now)
	}
	c.stage, c.bid, c.tries, c.inherits = resting, 0, 0, false
}

// won is whether a quorum of voters granted.
func (c *contest) won() bool {
	n := 0
	for _, id := range c.m.members.seats {
		if c.granted[id] {
			n++
		}
	}
	return n >= c.m.rules.quorum
}

// stagger is how long to let better ranked standbys go first.
func (c *contest) stagger() time.Duration {
	rank, self, gone := 0, c.m.cfg.ID, c.predecessor
	if c.holder.id != "" {
		gone = c.holder.id // it will be, when this is of use
	}
	first := ""
	if gone == "" {
		first = c.m.firstChoice(c.vip)
	}
	for _, id := range c.m.members.seats {
		if id != self && id != gone && c.m.fresh(id) && self != first && (id == first || before(c.vip, id, self)) {
			rank++
		}
	}
	spread := c.m.cfg.Timing.Spread
	return time.Duration(rank)*spread + 1 + c.m.jitter(spread/4)
}

// backed is the latest stamp that a quorum of voters promised on.
func (c *contest) backed() (time.Duration, bool) {
	var room [MaxReplicas]time.Duration
	stamps := room[:0]
	for _, id := range c.m.members.seats {
		if s, ok := c.acked[id]; ok {
			stamps = append(stamps, s)
		}
	}
	if len(stamps) < c.m.rules.quorum {
		return 0, false
	}
	slices.Sort(stamps)
	return stamps[len(stamps)-max(1, c.m.rules.quorum)], true
}
