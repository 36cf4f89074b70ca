package election

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// members is whom this member has heard from and whose votes count. Quorums of one
// group must overlap, so at most Replicas names have a seat, and one that has keeps
// it: were seats given by who is alive, a newcomer could displace a voter whose
// promise stands, or two sides of a partition could each fill up.
type members struct {
	known   map[string]*member
	seats   []string // sorted; this member's own name among them, or it is surplus
	named   bool     // the configuration names the voters: seats never change
	settled bool     // the first restart wait is over and the seats are given
	changed bool
	twin    twin
}

type member struct {
	incarnation uint64
	left        uint64 // the incarnation that said it leaves
	heard       time.Duration
	seated      time.Duration
	voters      []string // as it last reported them
	vips        []string // likewise
	dissent     *dissent // its group is another: nothing it says is taken in
}

// dissent is a configuration that contradicts this member's.
type dissent struct {
	replicas int
	timing   Timing
}

// twin is another live member of this member's own name.
type twin struct {
	count int
	heard time.Duration
}

// maxKnown bounds what a confused network can make a member remember.
const maxKnown = 8 * MaxReplicas

func newMembers(voters []string) members {
	return members{known: map[string]*member{}, seats: slices.Sorted(slices.Values(voters)), settled: len(voters) > 0, named: len(voters) > 0}
}

// hear notes who speaks and returns whether to listen.
func (m *Machine) hear(now time.Duration, msg Message) bool {
	ms := &m.members
	if msg.From == "" || len(msg.From) > MaxName || msg.Incarnation == 0 {
		return false
	}
	if msg.From == m.cfg.ID {
		if msg.Incarnation != m.cfg.Incarnation && now-m.started > 10*m.cfg.Timing.Lease {
			ms.twin = twin{ms.twin.count + 1, now}
		}
		return false
	}
	p := ms.known[msg.From]
	if p == nil {
		if len(ms.known) >= maxKnown {
			return false
		}
		p = &member{}
		ms.known[msg.From] = p
	}
	if p.left != 0 && p.left == msg.Incarnation {
		return true // under way since before it left; a Release among it is welcome
	}
	ms.changed = ms.changed || p.heard == 0 || now-p.heard > m.patience() || p.incarnation != msg.Incarnation
	p.heard, p.incarnation = now, msg.Incarnation
	if msg.Replicas != m.cfg.Replicas || msg.Timing != m.cfg.Timing {
		ms.changed = ms.changed || p.dissent == nil
		p.dissent = &dissent{msg.Replicas, msg.Timing}
		if m.last < m.voteFrom {
			// Before the restart it may have promised for a lease as long as that.
			m.abstainUntil(m.started + min(msg.Timing.Lease, time.Minute))
		}
		return false
	}
	ms.changed = ms.changed || p.dissent != nil
	p.dissent = nil
	if len(msg.Voters) > 0 && len(msg.Voters) <= MaxReplicas && !slices.Equal(p.voters, msg.Voters) {
		p.voters, ms.changed = slices.Clone(msg.Voters), true
	}
	if len(msg.VIPs) > 0 && len(msg.VIPs) <= MaxVIPs && !slices.Equal(p.vips, msg.VIPs) {
		p.vips = slices.Clone(msg.VIPs)
	}
	if msg.Leaving {
		p.left, ms.changed = msg.Incarnation, true
		ms.unseat(msg.From)
	}
	return true
}

// patience is how long a member counts as alive unheard: it says hello twice a lease.
func (m *Machine) patience() time.Duration { return 5 * m.cfg.Timing.Lease }

func (m *Machine) fresh(id string) bool {
	p := m.members.known[id]
	return id == m.cfg.ID || p != nil && p.heard > 0 && p.left != p.incarnation && p.dissent == nil && m.last-p.heard <= m.patience()
}

func (m *Machine) seated(id string) bool {
	return slices.Contains(m.members.seats, id)
}

// voters are the members with a seat that are alive.
func (m *Machine) voters() []string {
	return slices.DeleteFunc(slices.Clone(m.members.seats), func(id string) bool { return !m.fresh(id) })
}

// census gives the seats.
func (m *Machine) census(now time.Duration) {
	ms := &m.members
	if ms.named || now < m.voteFrom && !ms.settled || !ms.changed && ms.settled && now < m.helloAt {
		return
	}
	ms.changed = false
	first := !ms.settled
	ms.settled = true
	was := m.seated(m.cfg.ID)
	for _, id := range slices.Clone(ms.seats) {
		if p := ms.known[id]; id != m.cfg.ID && now-max(p.heard, p.seated) > m.cfg.Forget {
			ms.unseat(id)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(ms.known)) {
		if p := ms.known[id]; m.fresh(id) && len(p.voters) == m.cfg.Replicas {
			m.reconcile(now, p.voters)
		}
	}
	waiting := slices.DeleteFunc(append(slices.Sorted(maps.Keys(ms.known)), m.cfg.ID), func(id string) bool {
		return m.seated(id) || !m.fresh(id)
	})
	slices.Sort(waiting)
	for _, id := range waiting {
		if len(ms.seats) < m.cfg.Replicas {
			m.seat(now, id)
		}
	}
	if is := m.seated(m.cfg.ID); is && !was && !first {
		m.abstainUntil(now + m.rules.wait) // whoever had the seat may have promised something
	}
	if first {
		for _, c := range m.contests {
			c.at = max(c.at, now+c.stagger())
		}
	}
}

// reconcile takes over a full list of voters where this member has none yet. Two
// full lists that differ become one, the same on every member that sees both.
func (m *Machine) reconcile(now time.Duration, voters []string) {
	ms := &m.members
	seats := voters
	if len(ms.seats) == m.cfg.Replicas {
		if slices.Equal(ms.seats, voters) {
			return
		}
		seats = slices.Concat(ms.seats, voters)
		slices.SortFunc(seats, func(a, b string) int {
			if fa, fb := m.fresh(a), m.fresh(b); fa != fb {
				if fa {
					return -1
				}
				return 1
			}
			return cmp.Compare(a, b)
		})
		seats = slices.Compact(seats)[:m.cfg.Replicas]
	} else if len(ms.seats) > 0 {
		return
	}
	ms.seats = nil
	for _, id := range seats {
		m.seat(now, id)
	}
}

func (m *Machine) seat(now time.Duration, id string) {
	ms := &m.members
	if i, found := slices.BinarySearch(ms.seats, id); !found {
		ms.seats = slices.Insert(ms.seats, i, id)
	}
	if id == m.cfg.ID {
		return
	}
	if ms.known[id] == nil {
		ms.known[id] = &member{}
	}
	ms.known[id].seated = now
}

func (ms *members) unseat(id string) {
	if ms.named {
		return
	}
	ms.seats = slices.DeleteFunc(ms.seats, func(s string) bool { return s == id })
}
