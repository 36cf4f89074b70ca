package election

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// abstains is why this member neither votes nor stands, "" when it does.
func (m *Machine) abstains() string {
	ms := &m.members
	switch {
	case m.leaving:
		return "it has resigned"
	case m.last < m.voteFrom:
		return "it waits until all that it may have promised before has ended"
	case ms.twin.count >= 3 && m.last-ms.twin.heard <= m.patience():
		return "another member has its name"
	case !m.seated(m.cfg.ID):
		return "it is surplus to the replicas"
	case m.outnumbered():
		return "more members contradict its configuration than share it"
	}
	return ""
}

// dissents tells whether a live member contradicts this one's configuration. It says
// hello at its own pace, which may be a slower one.
func (m *Machine) dissents(p *member) bool {
	const longest = 5 * time.Minute // what the slowest valid timing gives
	return p.dissent != nil && m.last-p.heard <= min(max(m.patience(), 5*p.dissent.timing.Lease), longest)
}

// outnumbered keeps one member with, say, Replicas of 1 among many with 3 from
// holding all by itself.
func (m *Machine) outnumbered() bool {
	against, with := 0, 1
	for id, p := range m.members.known {
		if m.fresh(id) {
			with++
		} else if m.dissents(p) {
			against++
		}
	}
	return against > with
}

// Problems says, sorted, what an operator has to put right, naming member and cure.
func (m *Machine) Problems() []string {
	ms := &m.members
	var problems []string
	add := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	var surplus []string
	for _, id := range slices.Sorted(maps.Keys(ms.known)) {
		p := ms.known[id]
		if d := p.dissent; m.dissents(p) {
			if d.replicas != m.cfg.Replicas {
				add("member %s: has replicas %d, %s has %d: its messages are ignored; give every member the same --replicas", id, d.replicas, m.cfg.ID, m.cfg.Replicas)
			}
			if d.timing != m.cfg.Timing {
				add("member %s: has timing (%v), %s has (%v): its messages are ignored; give every member the same --timing", id, d.timing, m.cfg.ID, m.cfg.Timing)
			}
		}
		if own := m.vips(); m.fresh(id) && len(p.vips) > 0 && !slices.Equal(p.vips, own) {
			add("member %s: has the VIPs %s, %s has %s: one that some do not have may be held by nobody, and is not known there after a failover; give every member the same --vip",
				id, strings.Join(p.vips, ", "), m.cfg.ID, strings.Join(own, ", "))
		}
		if ms.settled && m.fresh(id) && !m.seated(id) {
			surplus = append(surplus, id)
		}
	}
	if ms.settled && !m.leaving && !m.seated(m.cfg.ID) {
		surplus = append(surplus, m.cfg.ID)
		slices.Sort(surplus)
	}
	if len(surplus) > 0 {
		add("member %s: more than the %d replicas (%s) are known, so it neither votes nor holds; raise --replicas on every member, or stop the surplus; a dead voter that it is to replace is forgotten after %v",
			strings.Join(surplus, ", "), m.cfg.Replicas, strings.Join(ms.seats, ", "), m.cfg.Forget)
	}
	if ms.twin.count >= 3 && m.last-ms.twin.heard <= m.patience() {
		add("member %s: another member has the same name: both abstain; give every node its own --node-name", m.cfg.ID)
	}
	if m.outnumbered() {
		add("member %s: more members contradict its replicas or timing than share them: it abstains; correct its configuration", m.cfg.ID)
	}
	slices.Sort(problems)
	return problems
}
