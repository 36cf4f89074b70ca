package audit

import (
	"bytes"
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"time"
)

// Question is who had a port of a VIP.
type Question struct {
	At       time.Time
	Port     uint16
	VIP      netip.Addr // zero: any
	Protocol string     // "": any
	// Within is how far the clock of who asks may be off from the gateways'.
	Within time.Duration
}

// Answer to it.
type Answer struct {
	// Found are the connections that had the port then: their ends, or the starts of those
	// whose end is not on record. Of those that began before their gateway knew, nothing
	// says that they had begun by then.
	Found []Record
	// Holders are who held the VIPs then, as the last record before says.
	Holders []Record
	// Lost are the records of a loss from that time on, in which an answer may be.
	Lost []Record
}

// Search collects an Answer from records in any order, of any number of gateways.
type Search struct {
	q       Question
	hint    []byte
	starts  []Record
	ends    []Record
	holders map[[2]string]Record // by gateway and VIP
	lost    []Record
}

// NewSearch for the answer to a question.
func NewSearch(q Question) *Search {
	return &Search{q: q, hint: appendNumber(nil, "port", uint64(q.Port))[1:], holders: map[[2]string]Record{}}
}

var (
	holderHint = []byte(`"event":"holder"`)
	lostHint   = []byte(`"event":"lost"`)
)

// Concerns tells at a glance whether a line as Append writes it can matter.
func (s *Search) Concerns(text []byte) bool {
	return bytes.Contains(text, s.hint) || bytes.Contains(text, holderHint) || bytes.Contains(text, lostHint)
}

// Add a record.
func (s *Search) Add(r Record) {
	if s.q.VIP.IsValid() && r.VIP.IsValid() && r.VIP != s.q.VIP {
		return
	}
	at, within := s.q.At, s.q.Within
	switch r.Event {
	case HolderEvent:
		name := [2]string{r.Gateway, r.VIP.String()}
		if last, ok := s.holders[name]; !r.Time.After(at) && (!ok || !r.Time.Before(last.Time)) {
			s.holders[name] = r
		}
		return
	case LostEvent:
		if !r.Time.Before(at.Add(-within)) {
			s.lost = append(s.lost, r)
		}
		return
	}
	if r.Port != s.q.Port || s.q.Protocol != "" && r.Protocol != s.q.Protocol {
		return
	}
	switch {
	case r.Event == StartEvent && !r.Time.After(at.Add(within)):
		s.starts = append(s.starts, r)
	case r.Event == EndEvent && !r.Start.After(at.Add(within)):
		s.ends = append(s.ends, r)
	}
}

// Answer is what was found by now.
func (s *Search) Answer() Answer {
	a := Answer{Lost: slices.Clone(s.lost)}
	since := s.q.At.Add(-s.q.Within)
	for _, end := range s.ends {
		goesOn := end.Reason == Stopped && !slices.ContainsFunc(s.ends, func(later Record) bool {
			return same(end, later) && later.Time.After(end.Time)
		})
		if goesOn || !end.Time.Before(since) {
			a.Found = append(a.Found, end)
		}
	}
	for _, start := range s.starts {
		if !slices.ContainsFunc(s.ends, func(end Record) bool { return same(start, end) && !end.Time.Before(start.Time) }) {
			a.Found = append(a.Found, start)
		}
	}
	for _, h := range s.holders {
		a.Holders = append(a.Holders, h)
	}
	byTime := func(x, y Record) int {
		return cmp.Or(x.Time.Compare(y.Time), cmp.Compare(x.Gateway, y.Gateway), x.VIP.Compare(y.VIP), x.Source.Compare(y.Source),
			cmp.Compare(x.SourcePort, y.SourcePort), x.Destination.Compare(y.Destination), cmp.Compare(x.Protocol, y.Protocol))
	}
	slices.SortStableFunc(a.Found, byTime)
	slices.SortFunc(a.Holders, byTime)
	slices.SortStableFunc(a.Lost, byTime)
	return a
}

// same tells whether two records can be of one connection.
func same(x, y Record) bool {
	return x.VIP == y.VIP && x.Protocol == y.Protocol && x.Source == y.Source && x.SourcePort == y.SourcePort &&
		x.Destination == y.Destination && x.DestinationPort == y.DestinationPort
}

// String of a record's connection, as the outside sees it.
func (r *Record) String() string {
	to := r.Destination.String()
	if r.DestinationPort != 0 {
		to = netip.AddrPortFrom(r.Destination, r.DestinationPort).String()
	}
	return netip.AddrPortFrom(r.VIP, r.Port).String() + " > " + to + " " + r.Protocol + " route " + strconv.Quote(r.Route)
}
