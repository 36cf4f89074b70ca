package election

import "time"

// Record adds up what became of one VIP, as one member saw it. Times are on the clock
// that the caller feeds.
type Record struct {
	holder  string
	gone    Transition // the end of the last holder
	since   time.Duration
	without time.Duration // before since
	last    Failover

	until time.Duration // end of this member's own lease
}

// Failover is one holder's end and what came after.
type Failover struct {
	From, To string
	Reason   string // why From held no more
	// Took is the time from From's last sign of life to To's first.
	Took time.Duration
	At   time.Duration
}

// NewRecord begins at a time when nobody is known to hold.
func NewRecord(now time.Duration) *Record { return &Record{since: now} }

// Enter takes a transition down.
func (r *Record) Enter(t Transition, now time.Duration) {
	if t.To == t.From { // a newer term
		return
	}
	if t.From != "" {
		r.gone, r.since = t, now
		if t.To != "" {
			r.gone.Reason = "another took over"
		}
	}
	r.holder = t.To
	if t.To == "" {
		return
	}
	r.without += now - r.since
	if r.gone.From != "" {
		r.last = Failover{From: r.gone.From, To: t.To, Reason: r.gone.Reason, Took: now - r.since + r.gone.Silent, At: now}
	}
}

// Without is how long nobody was known to hold, all in all.
func (r *Record) Without(now time.Duration) time.Duration {
	if r.holder != "" {
		return r.without
	}
	return r.without + now - r.since
}

// Last is the last failover; false before there was one.
func (r *Record) Last() (Failover, bool) { return r.last, r.last.To != "" }

// Lease takes a change of this member's own lease and gives how much of the lease
// before was left, below zero when it came too late; false when nothing was renewed.
func (r *Record) Lease(l LeaseChange, now time.Duration) (left time.Duration, renewed bool) {
	before := r.until
	r.until = l.Until
	if before == 0 || l.Until == 0 && now < before { // the first, or given up in time
		return 0, false
	}
	return before - now, true
}
