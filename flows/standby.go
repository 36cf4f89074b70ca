package flows

import (
	"errors"
	"fmt"
	"slices"
)

// Standby is the receiving end of one stream: it turns messages into changes of its
// own table.
type Standby struct {
	term   uint64
	phase  phase
	next   uint64
	before map[Key]Flow // in the own table and not in the snapshot so far
}

type phase uint8

const (
	fresh phase = iota
	reading
	streaming
)

// ErrStale is a stream of a term that is over: another member has held the VIP since.
var ErrStale = errors.New("the stream is of an earlier holder")

// NewStandby listens to the holder of a term, or of a later one.
func NewStandby(term uint64) *Standby { return &Standby{term: term} }

// Observe notes the newest term that is known from elsewhere.
func (s *Standby) Observe(term uint64) { s.term = max(s.term, term) }

// Synced tells that the own table has everything up to the last batch taken.
func (s *Standby) Synced() bool { return s.phase == streaming }

// Position of the own table; only of use once Synced.
func (s *Standby) Position() Position { return Position{Term: s.term, Seq: s.next - 1} }

// Answer tells the holder what the own table has, once it has it.
func (s *Standby) Answer(m Message) Message {
	switch m.Kind {
	case End:
		return m
	case Changes:
		return Message{Kind: Ack, Term: s.term, Seq: s.next - 1}
	}
	return Message{Kind: Beat, Term: s.term} // a sign of life
}

// Step takes the next message of the stream and gives what to change. table is the
// own table, read when a snapshot begins. After an error the stream is to be begun
// anew.
func (s *Standby) Step(m Message, table func() ([]Flow, error)) ([]Change, error) {
	if m.Term < s.term {
		return nil, fmt.Errorf("term %d, and term %d is known: %w", m.Term, s.term, ErrStale)
	}
	s.term = m.Term
	switch {
	case m.Kind == Begin:
		own, err := table()
		if err != nil {
			return nil, err
		}
		s.phase, s.next, s.before = reading, m.Seq, make(map[Key]Flow, len(own))
		for _, f := range own {
			s.before[f.Key] = f
		}
		return nil, nil
	case m.Kind == Snapshot && s.phase == reading:
		return s.compare(m.Changes), nil
	case m.Kind == End && s.phase == reading:
		s.phase = streaming
		return s.sweep(), nil
	case m.Kind == Changes && s.phase == streaming && m.Seq == s.next:
		s.next++
		return m.Changes, nil
	case m.Kind == Beat:
		return nil, nil
	case m.Kind == Changes && s.phase == streaming:
		return nil, fmt.Errorf("batch %d came where %d was due", m.Seq, s.next)
	}
	return nil, fmt.Errorf("a message of kind %d came out of its turn", m.Kind)
}

// compare keeps the own table's other flows for the end.
func (s *Standby) compare(flows []Change) []Change {
	for i, c := range flows {
		own, there := s.before[c.Flow.Key]
		flows[i].Op = Put
		if there && own.Port != c.Flow.Port {
			flows[i].Op = Replace
		}
		delete(s.before, c.Flow.Key)
	}
	return flows
}

// sweep ends what the holder does not have.
func (s *Standby) sweep() []Change {
	ended := make([]Change, 0, len(s.before))
	for _, f := range s.before {
		ended = append(ended, Change{Op: Delete, Flow: f})
	}
	s.before = nil
	slices.SortFunc(ended, func(a, b Change) int { return a.Flow.Compare(b.Flow.Key) })
	return ended
}
