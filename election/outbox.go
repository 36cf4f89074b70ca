package election

import (
	"slices"
)

// outbox gathers what a call brings about, so that entries about all VIPs for one
// receiver travel together.
type outbox struct {
	leases      []LeaseChange
	transitions []Transition
	toAll       []Entry
	to          []string // receivers of answers, in the order of the first
	answers     [][]Entry
	hello       bool // say something to all, be there entries or not
}

func (o *outbox) answer(to string, e Entry) {
	i := slices.Index(o.to, to)
	if i < 0 {
		i = len(o.to)
		o.to, o.answers = append(o.to, to), append(o.answers, nil)
	}
	o.answers[i] = append(o.answers[i], e)
}

// flush empties the outbox into a Ready.
func (m *Machine) flush() Ready {
	o := &m.out
	r := Ready{Leases: o.leases, Transitions: o.transitions}
	if o.hello || len(o.toAll) > 0 {
		r.Send = m.pack(r.Send, "", o.toAll)
		if o.hello {
			r.Send[0].Message.Voters = slices.Clone(m.members.seats)
			r.Send = m.tellVIPs(r.Send)
		}
	}
	for i, to := range o.to {
		r.Send = m.pack(r.Send, to, o.answers[i])
	}
	*o = outbox{}
	return r
}

// tellVIPs adds what this member is configured with to what it says to all, where there is room.
func (m *Machine) tellVIPs(send []Outgoing) []Outgoing {
	if len(m.contests) > MaxVIPs {
		return send
	}
	if len(send[0].Message.Entries)+len(m.contests) > MaxEntries {
		send = m.pack(send, "", nil)
	}
	send[len(send)-1].Message.VIPs = m.vips()
	return send
}

func (m *Machine) vips() []string {
	vips := make([]string, len(m.contests))
	for i, c := range m.contests {
		vips[i] = c.vip
	}
	return vips
}

func (m *Machine) pack(send []Outgoing, to string, entries []Entry) []Outgoing {
	for {
		n := min(len(entries), MaxEntries)
		send = append(send, Outgoing{To: to, Message: Message{
			From: m.cfg.ID, Incarnation: m.cfg.Incarnation, Replicas: m.cfg.Replicas, Timing: m.cfg.Timing,
			Leaving: m.leaving, Entries: entries[:n:n],
		}})
		if entries = entries[n:]; len(entries) == 0 {
			return send
		}
	}
}
