// Package election decides which member of a group holds each VIP, so that never
// two do at one instant, whatever is lost, delayed, paused or partitioned.
//
// A holder has a lease: a quorum of voters promised to follow nobody else for a
// while, and it acts only for a shorter while, counted from when it asked. Safety
// rests on those promises, on clocks that run at nearly the right rate (not on
// what they show), and on a restarted voter abstaining until whatever it may have
// promised has ended. Terms only order what is said; they are not kept on disk.
//
// The package is pure: the caller brings clock, messages and randomness to a
// Machine and carries out what comes back.
package election

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// Machine is one member's part in the elections of all VIPs of a group. It is not
// safe for concurrent use. All its times are the caller's CLOCK_BOOTTIME, which
// goes on while the host is suspended.
type Machine struct {
	cfg   Config
	rules rules
	rand  *rand.Rand

	started  time.Duration
	last     time.Duration // the latest time the caller gave
	voteFrom time.Duration // it abstains before
	yields   time.Duration // it lets the last holder go first before, having been late itself
	beatAt   time.Duration
	helloAt  time.Duration
	leaving  bool
	why      string // it abstains, "" when it votes

	contests []*contest // sorted by VIP
	members  members
	out      outbox
}

// New returns a machine that first abstains for one lease, because an earlier life
// of this member may have made promises.
func New(cfg Config, now time.Duration) (*Machine, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("election of %s: %w", cfg.ID, err)
	}
	if cfg.Forget == 0 {
		cfg.Forget = 10 * time.Minute
	}
	m := &Machine{
		cfg: cfg, rules: cfg.rules(), rand: rand.New(rand.NewPCG(cfg.Seed, cfg.Incarnation)),
		started: now, last: now, beatAt: now, helloAt: now,
		members: newMembers(cfg.Voters),
	}
	m.voteFrom = now + m.rules.wait
	m.why = m.abstains()
	for _, vip := range slices.Sorted(slices.Values(cfg.VIPs)) {
		m.contests = append(m.contests, newContest(m, vip))
	}
	return m, nil
}

// Tick does what has become due. A call later than Next is safe, only late.
func (m *Machine) Tick(now time.Duration) Ready {
	now = m.advance(now)
	m.run(now)
	return m.flush()
}

// Step takes a message in and does what has become due.
func (m *Machine) Step(now time.Duration, msg Message) Ready {
	now = m.advance(now)
	m.run(now)
	if m.hear(now, msg) {
		for _, e := range msg.Entries {
			if c := m.contest(e.VIP); c != nil && e.Term <= MaxTerm {
				c.step(now, msg, e)
			}
		}
		m.run(now)
	}
	return m.flush()
}

// SetEligible says whether this member may hold the VIP, and if not, why: its link
// is down, its rules are not in place. A holder that may not gives up at once.
func (m *Machine) SetEligible(now time.Duration, vip string, ok bool, reason string) Ready {
	now = m.advance(now)
	m.run(now)
	if c := m.contest(vip); c != nil {
		c.bar(now, ok, reason)
	}
	m.run(now)
	return m.flush()
}

// Resign gives the VIP up for another to take it at once; this member stands for it
// again only when nobody has taken it for a lease.
func (m *Machine) Resign(now time.Duration, vip, reason string) Ready {
	now = m.advance(now)
	m.run(now)
	if c := m.contest(vip); c != nil {
		c.resign(now, "resigned: "+reason)
	}
	return m.flush()
}

// ResignAll gives everything up, the seat among the voters included: the member
// takes no further part.
func (m *Machine) ResignAll(now time.Duration, reason string) Ready {
	now = m.advance(now)
	m.run(now)
	m.leaving = true
	m.why = m.abstains()
	for _, c := range m.contests {
		c.resign(now, "resigned: "+reason)
	}
	m.out.hello = true
	return m.flush()
}

// Next is when Tick is due, if nothing arrives before.
func (m *Machine) Next() time.Duration {
	next := m.helloAt
	if m.last < m.voteFrom {
		next = min(next, m.voteFrom)
	}
	for _, c := range m.contests {
		next = min(next, c.next())
	}
	return next
}

// Status of every VIP, sorted.
func (m *Machine) Status() []Status {
	voters := m.voters()
	status := make([]Status, 0, len(m.contests))
	for _, c := range m.contests {
		s := Status{VIP: c.vip, Holder: c.holder.id, Term: c.term, Since: c.since, Voters: voters, Quorum: m.rules.quorum}
		switch {
		case c.stage == holding:
			s.Role, s.Term, s.Until, s.RTT, s.Willing = Holder, c.held, c.until, c.rtt, c.willingNow()
		case m.why != "":
			s.Role, s.Why = Abstaining, m.why
		case c.barred != "":
			s.Role, s.Why = Ineligible, c.barred
		case c.stage == standing:
			s.Role = Candidate
		default:
			s.Role = Standby
		}
		status = append(status, s)
	}
	return status
}

// advance takes the caller's clock in. A gap of a lease or more means that the
// process did not run, or that the clock was set on by a resume: every lease is
// over by the clock itself, but how much of a promise is left is no longer known,
// so that it abstains as after a restart.
//
// Whoever was late cannot tell a holder that fell silent from one that it did not
// hear, or that was kept waiting by what kept itself. So it waits for one more
// heartbeat, and takes nothing from a holder that goes on with it.
func (m *Machine) advance(now time.Duration) time.Duration {
	t := m.cfg.Timing
	now = max(now, m.last)
	gap, late := now-m.last, now-m.Next()
	m.last = now
	switch {
	case gap >= t.Lease:
		m.abstainUntil(now + m.rules.wait)
		for _, c := range m.contests {
			c.abandon(now, "nothing ran for a lease or more")
		}
		m.yields = max(m.yields, m.voteFrom+t.Heartbeat)
	case late > t.Spread/4: // more than chance puts between two of one rank
		m.yields = max(m.yields, now+t.Heartbeat)
	}
	return now
}

func (m *Machine) abstainUntil(t time.Duration) {
	m.voteFrom = max(m.voteFrom, t)
	for _, c := range m.contests {
		c.at = max(c.at, m.voteFrom+c.stagger())
	}
}

func (m *Machine) run(now time.Duration) {
	m.census(now)
	if m.why = m.abstains(); m.why != "" {
		for _, c := range m.contests {
			c.abandon(now, m.why)
		}
	}
	held := false
	for _, c := range m.contests {
		c.run(now)
		held = held || c.stage == holding
	}
	due := held && now >= m.beatAt
	if due {
		m.beatAt = now + m.cfg.Timing.Heartbeat
	}
	for _, c := range m.contests {
		if c.stage == holding && (due || c.beats) {
			c.beat(now)
		}
	}
	if now >= m.helloAt {
		m.helloAt = now + m.cfg.Timing.Lease/2
		m.out.hello = true
	}
}

func (m *Machine) contest(vip string) *contest {
	i, found := slices.BinarySearchFunc(m.contests, vip, func(c *contest, vip string) int { return strings.Compare(c.vip, vip) })
	if !found {
		return nil
	}
	return m.contests[i]
}

// jitter is uniform in [0, d).
func (m *Machine) jitter(d time.Duration) time.Duration {
	return time.Duration(m.rand.Int64N(max(1, int64(d))))
}
