package election

import "time"

// settle makes a candidate the holder once a quorum has voted for it, and gives a
// holder that had to be elected again its new term.
func (c *contest) settle(now time.Duration) {
	if !c.won() {
		return
	}
	stamp, ok := c.backed()
	if !ok || stamp+c.m.rules.span <= now {
		return // the votes came too late to be of use; newer ones are asked for
	}
	reason := elected
	if c.stage == holding {
		reason = "elected again in a newer term"
	}
	c.stage, c.held, c.bid, c.tries, c.inherits = holding, c.bid, 0, 0, false
	c.rtt = now - stamp
	c.until = max(c.until, stamp+c.m.rules.span)
	c.m.out.leases = append(c.m.out.leases, LeaseChange{VIP: c.vip, Term: c.held, Until: c.until})
	c.setHolder(now, tenure{c.m.cfg.ID, c.m.cfg.Incarnation, c.held}, reason)
	c.beats = true
}

// beat asks every voter for another lease.
func (c *contest) beat(now time.Duration) {
	c.beats = false
	c.acked[c.m.cfg.ID] = now
	kind, term := Heartbeat, c.held
	if c.bid != 0 {
		kind, term = Vote, c.bid
	}
	c.promise(now, tenure{c.m.cfg.ID, c.m.cfg.Incarnation, term})
	c.ask(now, kind, term)
	c.renew(now, 0)
}

// renew moves the end of the lease when a quorum has promised anew.
func (c *contest) renew(now, rtt time.Duration) {
	if c.bid != 0 && c.won() {
		c.settle(now)
		return
	}
	stamp, ok := c.backed()
	if !ok || stamp+c.m.rules.span <= c.until {
		return
	}
	c.until, c.rtt, c.alive = stamp+c.m.rules.span, rtt, now
	c.m.out.leases = append(c.m.out.leases, LeaseChange{VIP: c.vip, Term: c.held, Until: c.until})
}

// lose ends the lease here, whatever is left of it, and then nothing else.
func (c *contest) lose(now time.Duration, reason string) {
	c.m.out.leases = append(c.m.out.leases, LeaseChange{VIP: c.vip, Term: c.held})
	c.stage, c.until, c.bid, c.held, c.tries, c.rtt, c.beats = resting, 0, 0, 0, 0, 0, false
	c.at = now
	c.setHolder(now, tenure{term: c.term}, reason)
}

// resign ends a lease or a candidacy and frees its voters.
func (c *contest) resign(now time.Duration, reason string) {
	t := c.m.cfg.Timing
	if c.stage == holding {
		term := max(c.held, c.bid)
		c.alive = now
		c.lose(now, reason)
		c.ask(now, Release, term)
		c.boundUntil = min(c.boundUntil, now)
	} else {
		c.giveUp(now)
	}
	c.at = now + t.Lease + c.stagger()
}

// abandon is for a member that finds that it takes no part any more.
func (c *contest) abandon(now time.Duration, reason string) {
	if c.stage != resting {
		c.resign(now, reason)
	}
}

func (c *contest) bar(now time.Duration, ok bool, reason string) {
	if ok {
		c.barred = ""
		return
	}
	if reason == "" {
		reason = "not eligible"
	}
	c.barred = reason
	if c.stage != resting {
		c.resign(now, "not eligible: "+reason)
	}
}
