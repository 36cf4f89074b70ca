package election

import "time"

// tenure is a member's right to hold in one term.
type tenure struct {
	id          string
	incarnation uint64
	term        uint64
}

func (t tenure) by(id string, incarnation uint64) bool {
	return t.id == id && t.incarnation == incarnation
}

// stage of a member's own candidacy.
type stage int

const (
	resting  stage = iota
	asking         // canvassing: nobody is bound yet
	standing       // asking for votes
	holding
)

// contest is everything about one VIP: this member's promise as a voter, whom it
// knows as holder, and its own candidacy or lease.
type contest struct {
	m      *Machine
	vip    string
	barred string // why it may not hold, "" when it may

	term       uint64 // the highest known
	voted      tenure // the last vote; at most one per term
	promised   tenure
	boundUntil time.Duration // end of the promise
	heard      time.Duration // stamp of the latest heartbeat of the promised
	released   tenure        // the last to give up: what it still has under way binds nobody

	holder      tenure // id "": nobody known
	holderUntil time.Duration
	alive       time.Duration // the holder's last sign of life; of this member, its lease's last renewal
	since       time.Duration
	predecessor string // the last holder known, presumed dead in the order of candidacy

	stage   stage
	at      time.Duration // when the candidacy goes on
	tries   int
	granted map[string]bool
	// inherits is that it stands for what was handed over to it.
	inherits bool

	// bid is the term stood in. A holder has one too when it needs a newer term to
	// be followed by all: it is voted for again without letting go.
	bid      uint64
	bidUntil time.Duration

	held  uint64 // the term held in
	until time.Duration
	acked map[string]time.Duration // voter → stamp of the latest request it promised on
	taken map[string]time.Duration // voter → stamp of the latest offer it took
	rtt   time.Duration
	beats bool // a heartbeat is due before the next common one

	bequest bequest // what this member has handed over
}

func newContest(m *Machine, vip string) *contest {
	return &contest{m: m, vip: vip, granted: map[string]bool{}, acked: map[string]time.Duration{}, taken: map[string]time.Duration{}, at: m.voteFrom}
}

func (c *contest) step(now time.Duration, msg Message, e Entry) {
	switch e.Kind {
	case Heartbeat:
		c.onHeartbeat(now, msg, e)
	case Release:
		c.onRelease(now, tenure{msg.From, msg.Incarnation, e.Term}, e.Heir)
	case Offer:
		c.onOffer(msg, e)
	case Canvass, Vote:
		if c.m.why != "" {
			if wait := c.m.voteFrom - now; wait > 0 {
				c.answer(msg, Entry{Kind: Refuse, Wait: wait})
			}
		} else if c.m.seated(msg.From) {
			c.onRequest(now, msg, e)
		}
	default:
		// Answers to an earlier life, or from a voter that has no seat here, count nothing;
		// nor does one that claims to answer what was not asked yet.
		if e.For == c.m.cfg.Incarnation && c.m.seated(msg.From) && e.Sent <= now && c.m.why == "" {
			c.onAnswer(now, msg.From, e)
		}
	}
}

// run does what has become due; several stages may pass where no other voter is needed.
func (c *contest) run(now time.Duration) {
	if c.stage == holding && now >= c.until {
		c.lose(now, ranOut)
	}
	if c.holder.id != "" && c.stage != holding && now >= max(c.holderUntil, c.m.yields) {
		c.setHolder(now, tenure{term: c.term}, silent)
	}
	c.remind(now)
	if now < c.turn() || c.stage == holding || c.barred != "" || c.m.why != "" {
		return
	}
	switch {
	case c.stage == standing && now >= c.bidUntil:
		c.giveUp(now)
		c.at = now + c.stagger()
	case c.stage == standing:
		c.canvassOrVote(now, Vote, c.bid)
	case c.bound(now, c.m.cfg.ID, c.m.cfg.Incarnation):
		c.at = c.boundUntil + c.stagger()
	default:
		c.stand(now)
	}
}

// next is when something becomes due.
func (c *contest) next() time.Duration {
	const never = 1<<63 - 1
	if c.stage == holding {
		return min(c.until, c.m.beatAt)
	}
	next := time.Duration(never)
	if c.barred == "" && c.m.why == "" {
		next = c.turn()
	}
	if c.holder.id != "" {
		next = min(next, max(c.holderUntil, c.m.yields))
	}
	if c.bequest.heir != "" {
		next = min(next, c.bequest.at)
	}
	return next
}

// turn is when the candidacy goes on, here where the last holder may have to go first.
func (c *contest) turn() time.Duration {
	if c.inherits || c.holder.id == "" && (c.predecessor == "" || c.predecessor == c.m.cfg.ID) {
		return c.at
	}
	return max(c.at, c.m.yields)
}

// bound is whether this voter has promised itself to another.
func (c *contest) bound(now time.Duration, id string, incarnation uint64) bool {
	return now < c.boundUntil && !c.promised.by(id, incarnation)
}

func (c *contest) promise(now time.Duration, to tenure) {
	c.promised, c.boundUntil = to, now+c.m.rules.promise
}

func (c *contest) setHolder(now time.Duration, to tenure, reason string) {
	if c.holder.id == to.id && c.holder.term == to.term {
		c.holder, c.alive = to, now
		return
	}
	if c.holder.id != "" {
		c.predecessor = c.holder.id
	}
	t := Transition{VIP: c.vip, From: c.holder.id, To: to.id, Term: to.term, Reason: reason}
	if t.From != "" {
		t.Silent = now - c.alive
	}
	c.m.out.transitions = append(c.m.out.transitions, t)
	c.alive = now
	if c.holder.id != to.id {
		c.since = now
	}
	c.holder = to
}

func (c *contest) answer(to Message, e Entry) {
	e.VIP, e.For = c.vip, to.Incarnation
	c.m.out.answer(to.From, e)
}

// ask sends a request to all.
func (c *contest) ask(now time.Duration, kind Kind, term uint64) {
	c.m.out.toAll = append(c.m.out.toAll, Entry{Kind: kind, VIP: c.vip, Term: term, Sent: now})
}
