package audit

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// moves is a VIP that moves between gateways, each with a kernel and a book of its own. What
// the holder's kernel does the kernels of those in step with it do, too; the others are let
// down to their own timeouts.
type moves struct {
	t       *rapid.T
	d       *Directory
	at      time.Time
	holder  int // -1: nobody has the VIP
	last    int // that held it
	ids     uint32
	live    map[uint16]bool // connections that there are
	all     map[uint16]bool // and were
	next    uint16
	members []*member
}

type member struct {
	name    string
	book    Book
	table   map[uint16]uint32 // ids, by the VIP's port
	inStep  bool
	told    int // who holds, as it knows; -1: it knows nobody
	written []Record
}

func (m *moves) see(g *member, kind Kind, port uint16, change ...func(*Sighting)) {
	s := sight(kind, port, append(change, func(s *Sighting) { s.ID = g.table[port] })...)
	g.written = g.book.See(g.written, &s, m.at, m.d)
}

func (m *moves) begin(g *member, port uint16) {
	m.ids++
	g.table[port] = m.ids
	m.see(g, Began, port)
}

func (m *moves) forget(g *member, port uint16, change ...func(*Sighting)) {
	if _, there := g.table[port]; there {
		m.see(g, Gone, port, change...)
		delete(g.table, port)
	}
}

// followers of the holder, which are told of what becomes of connections.
func (m *moves) followers() (all []*member) {
	for i, g := range m.members {
		if i != m.holder && g.inStep {
			all = append(all, g)
		}
	}
	return all
}

func (m *moves) open() {
	m.next++
	m.live[m.next], m.all[m.next] = true, true
	m.begin(m.members[m.holder], m.next)
	for _, g := range m.followers() {
		m.begin(g, m.next)
	}
}

// end has a live connection end at the holder: by a close, or by silence.
func (m *moves) end(port uint16, closes bool) {
	h := m.members[m.holder]
	delete(m.live, port)
	if _, there := h.table[port]; !there { // forgotten while nobody held
		return
	}
	if closes {
		m.see(h, Closed, port, over)
	} else {
		m.forget(h, port, expired)
	}
	for _, g := range m.followers() {
		m.forget(g, port)
	}
	if closes {
		m.forget(h, port, expired, over)
	}
}

// lose has the holder lose the VIP. Only who is in step with it may take it.
func (m *moves) lose() {
	m.last, m.holder = m.holder, -1
	h := m.members[m.last]
	h.told = -1
	h.book.Adrift(theVIP)
}

func (m *moves) take(i int) {
	m.holder = i
	m.tell(i)
	for j, g := range m.members {
		g.inStep = j == i
	}
}

// tell a member who holds.
func (m *moves) tell(i int) {
	if g := m.members[i]; g.told != m.holder {
		g.told = m.holder
		g.written = g.book.Holder(g.written, theVIP, m.members[m.holder].name, m.at, m.d)
	}
}

// follow has a member's kernel compared with the holder's.
func (m *moves) follow(i int) {
	m.tell(i)
	g, h := m.members[i], m.members[m.holder]
	for port := range m.all {
		_, has := g.table[port]
		_, must := h.table[port]
		switch {
		case has && !must:
			m.forget(g, port)
		case must && !has:
			m.begin(g, port)
		}
	}
	g.inStep = true
	g.book.Settled(theVIP, true)
}

// Whoever holds the VIP, forgets what it held, and learns late who has it now: each
// connection has one line in all books together.
func TestOneLineWhateverMoves(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &moves{t: t, d: NewDirectory(planOf("web", audited), nil), at: began, live: map[uint16]bool{}, all: map[uint16]bool{}}
		for i := range 3 {
			name := string(rune('a' + i))
			m.members = append(m.members, &member{name: name, book: Book{Gateway: name, Counting: i == 0}, table: map[uint16]uint32{}, told: -1})
		}
		m.take(0)
		m.follow(1)
		m.follow(2)
		for range rapid.IntRange(1, 80).Draw(t, "steps") {
			m.at = m.at.Add(time.Second)
			i := rapid.IntRange(0, 2).Draw(t, "gateway")
			port := rapid.Uint16Range(1, m.next+1).Draw(t, "port")
			held := m.holder >= 0
			switch what := rapid.SampledFrom([]string{"open", "close", "silent", "lose", "take", "follow", "told", "forget"}).Draw(t, "what"); {
			case what == "open" && held:
				m.open()
			case (what == "close" || what == "silent") && held && m.live[port]:
				m.end(port, what == "close")
			case what == "lose" && held:
				m.lose()
			case what == "take" && !held && (i == m.last || m.members[i].inStep):
				m.take(i)
			case what == "told" && held:
				m.tell(i)
			case what == "follow" && held && i != m.holder && !m.members[i].inStep:
				m.follow(i)
			// Whose kernel has the timeouts of a holder: who was it, until it follows another.
			case what == "forget" && (held && i != m.holder && !m.members[i].inStep || !held && i == m.last):
				m.forget(m.members[i], port, expired)
			}
		}
		if m.holder < 0 {
			m.take(m.last)
		}
		for port := range m.live {
			m.end(port, false)
		}
		lines := map[uint16][]string{}
		for i, g := range m.members {
			if i != m.holder {
				m.tell(i)
			}
			for _, r := range g.written {
				if r.Event == EndEvent {
					lines[r.Port] = append(lines[r.Port], fmt.Sprintf("%s: %s", g.name, r.Reason))
				}
			}
		}
		for port := range m.all {
			if len(lines[port]) != 1 {
				t.Fatalf("connection %d has the lines %q, want one", port, lines[port])
			}
		}
	})
}
