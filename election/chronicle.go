package election

import (
	"slices"
	"time"
)

// Spell is a time in which a member knew one holder, or none.
type Spell struct {
	Holder string    `json:"holder"` // "": nobody was known to hold
	Term   uint64    `json:"term"`
	Reason string    `json:"reason"` // of its begin
	From   time.Time `json:"from"`
	// To is zero while it lasts.
	To time.Time `json:"to,omitzero"`
}

// Chronicle keeps the last spells of each VIP, as one member saw them. It is not safe
// for use by several goroutines.
type Chronicle struct {
	limit  int
	spells map[string][]Spell
}

// NewChronicle begins with nobody known to hold any of the VIPs. It keeps at most limit
// spells of each.
func NewChronicle(vips []string, limit int, now time.Time) *Chronicle {
	c := &Chronicle{limit: limit, spells: make(map[string][]Spell, len(vips))}
	for _, vip := range vips {
		c.spells[vip] = []Spell{{Reason: "this gateway started", From: now}}
	}
	return c
}

// Enter takes a transition down. A newer term of the same holder is no new spell.
func (c *Chronicle) Enter(t Transition, now time.Time) {
	spells := c.spells[t.VIP]
	if last := len(spells) - 1; last >= 0 {
		if spells[last].Holder == t.To {
			spells[last].Term = t.Term
			return
		}
		if now.Before(spells[last].From) { // a clock that was set back
			now = spells[last].From
		}
		spells[last].To = now
	}
	spells = append(spells, Spell{Holder: t.To, Term: t.Term, Reason: t.Reason, From: now})
	c.spells[t.VIP] = spells[max(0, len(spells)-c.limit):]
}

// Of gives a VIP's spells, the oldest first; the last one lasts.
func (c *Chronicle) Of(vip string) []Spell { return slices.Clone(c.spells[vip]) }
