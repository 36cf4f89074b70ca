package lab

import (
	"net/netip"
	"slices"
	"time"
)

// Timeline is what a client lived through, in the order of sending.
type Timeline struct {
	Exchanges []Exchange
	// End is when the client stopped listening for answers; the zero time is the
	// last moment in Exchanges.
	End time.Time
}

// Gap is a stretch of time without an answer.
type Gap struct{ From, To time.Time }

// Length of the gap.
func (g Gap) Length() time.Duration { return g.To.Sub(g.From) }

// Answers are the moments at which answers came, in order.
func (t Timeline) Answers() []time.Time {
	var at []time.Time
	for _, e := range t.Exchanges {
		if !e.Answered.IsZero() {
			at = append(at, e.Answered)
		}
	}
	slices.SortFunc(at, time.Time.Compare)
	return at
}

// LongestGap is the longest stretch between two answers, before the first one
// counted from the first question, and after the last one to the last question.
// The wait for answers after that belongs to no gap: nothing was asked.
func (t Timeline) LongestGap() Gap {
	if len(t.Exchanges) == 0 {
		return Gap{}
	}
	last := t.Exchanges[0].Sent
	longest := Gap{last, last}
	for _, at := range append(t.Answers(), t.Exchanges[len(t.Exchanges)-1].Sent) {
		if at.Sub(last) > longest.Length() {
			longest = Gap{last, at}
		}
		if at.After(last) {
			last = at
		}
	}
	return longest
}

// Stall is the longest stretch between two answers that lasted into a span of time, or
// from the last answer to its end; the questions may have been asked before.
func (t Timeline) Stall(from, to time.Time) Gap {
	var longest Gap
	var last time.Time
	for _, at := range append(t.Answers(), to) {
		if at.After(to) {
			at = to
		}
		if g := (Gap{last, at}); !last.IsZero() && at.After(from) && g.Length() > longest.Length() {
			longest = g
		}
		last = at
	}
	return longest
}

// NextReply is the time from the fault to the first answer to a question asked
// after it; answers already on their way at the fault say nothing. False: none came.
func (t Timeline) NextReply(fault time.Time) (time.Duration, bool) {
	var first time.Time
	for _, e := range t.Exchanges {
		if e.Sent.After(fault) && !e.Answered.IsZero() && (first.IsZero() || e.Answered.Before(first)) {
			first = e.Answered
		}
	}
	return first.Sub(fault), !first.IsZero()
}

// Lost is the number of questions without an answer.
func (t Timeline) Lost() int {
	lost := 0
	for _, e := range t.Exchanges {
		if e.Answered.IsZero() {
			lost++
		}
	}
	return lost
}

// Between is the part asked from one moment to before another; the zero time is
// no bound.
func (t Timeline) Between(from, to time.Time) Timeline {
	part := Timeline{End: t.End}
	for _, e := range t.Exchanges {
		if !e.Sent.Before(from) && (to.IsZero() || e.Sent.Before(to)) {
			part.Exchanges = append(part.Exchanges, e)
		}
	}
	return part
}

// Sources says how many answered questions the partner saw from each address.
func (t Timeline) Sources() map[netip.Addr]int {
	sources := map[netip.Addr]int{}
	for _, e := range t.Exchanges {
		if e.Source.IsValid() {
			sources[e.Source.Addr()]++
		}
	}
	return sources
}

// Latency is the q-quantile (0 to 1) of the answered questions' latencies.
func (t Timeline) Latency(q float64) time.Duration {
	var all []time.Duration
	for _, e := range t.Exchanges {
		if !e.Answered.IsZero() {
			all = append(all, e.Latency())
		}
	}
	return Quantile(all, q)
}

// Quantile is the value at the nearest rank; 0 of nothing.
func Quantile(all []time.Duration, q float64) time.Duration {
	if len(all) == 0 {
		return 0
	}
	all = slices.Sorted(slices.Values(all))
	rank := int(q*float64(len(all)) + 0.999999)
	return all[min(max(rank, 1), len(all))-1]
}
