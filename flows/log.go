package flows

import "time"

// Log is what a holder tells about one VIP in one term. What has not been sealed
// into a batch yet keeps only the latest of each flow, and what every standby has
// acknowledged is forgotten; so a Log is small unless a standby lags, and then it
// is bounded: that standby gets a snapshot instead.
type Log struct {
	Term uint64 // it may grow
	// Have is what the holder's own table had of the holders before it.
	Have Position

	own      []uint64      // the terms before Term in which the holder held
	renewed  time.Duration // when Term began
	news     *news         // what the kernel told of since; nil: too long ago, or too much
	owed     map[Key]bool  // ends that it has yet to tell of, and that are no news
	limit    int           // bytes of batches
	pending  []Change
	at       map[Key]int   // into pending
	since    time.Duration // when the oldest of pending was added
	batches  []Batch       // without a gap, the first has the number first
	first    uint64
	bytes    int
	standbys map[*Cursor]bool
}

// Batch of changes, encoded once for all standbys.
type Batch struct {
	Seq     uint64
	At      time.Duration // when its oldest change was added
	Changes int
	Frame   []byte
}

// NewLog keeps batches of at most limit bytes for standbys that lag.
func NewLog(term uint64, limit int, now time.Duration) *Log {
	return &Log{Term: term, limit: limit, first: 1, at: map[Key]int{}, standbys: map[*Cursor]bool{}, news: newNews(), renewed: now}
}

// Add notes a change that the kernel tells of, and returns how many wait for Seal.
func (l *Log) Add(now time.Duration, c Change) int {
	l.note(now, c.Flow.Key)
	if len(l.standbys) == 0 {
		l.first++ // nobody has it; whoever comes gets a snapshot
		return 0
	}
	if i, again := l.at[c.Flow.Key]; again {
		l.pending[i] = c.after(l.pending[i].Op)
		return len(l.pending)
	}
	if len(l.pending) == 0 {
		l.since = now
	}
	l.at[c.Flow.Key] = len(l.pending)
	l.pending = append(l.pending, c)
	return len(l.pending)
}

// Seal makes batches of what was added.
func (l *Log) Seal() {
	for rest := l.pending; len(rest) > 0; {
		n := min(len(rest), MaxChanges)
		seq := l.next()
		b := Batch{Seq: seq, At: l.since, Changes: n, Frame: Encode(Message{Kind: Changes, Term: l.Term, Seq: seq, Changes: rest[:n]})}
		l.batches, l.bytes, rest = append(l.batches, b), l.bytes+len(b.Frame), rest[n:]
	}
	l.clear()
	l.trim()
}

// clear keeps no crowd's memory for the quiet that follows it.
func (l *Log) clear() {
	if cap(l.pending) > 4*MaxChanges {
		l.pending, l.at = nil, map[Key]int{}
		return
	}
	l.pending = l.pending[:0]
	clear(l.at)
}

// Reset says that changes were missed: every standby needs a snapshot.
func (l *Log) Reset() {
	for c := range l.standbys {
		c.lost = true
	}
	l.trim()
	l.first++ // nobody has what was missed
}

func (l *Log) next() uint64 { return l.first + uint64(len(l.batches)) }

// trim forgets what nobody needs, and what is beyond the limit.
func (l *Log) trim() {
	keep := l.next()
	for c := range l.standbys {
		if !c.lost {
			keep = min(keep, c.acked)
		}
	}
	n := 0
	for n < len(l.batches) && (l.batches[n].Seq < keep || l.bytes > l.limit) {
		l.bytes -= len(l.batches[n].Frame)
		l.batches[n] = Batch{} // the array lives on
		n++
	}
	l.batches, l.first = l.batches[n:], l.first+uint64(n)
	if len(l.batches) == 0 {
		l.batches = nil
	}
	for c := range l.standbys {
		c.lost = c.lost || c.acked < l.first
	}
}

// Cursor is how far one standby is.
type Cursor struct {
	log   *Log
	lost  bool
	whole bool   // the standby's kernel has the snapshot
	base  uint64 // the first batch after the snapshot
	sent  uint64 // the next batch to send
	acked uint64 // the next batch to be acknowledged
}

// Follow begins a standby's stream, with a snapshot.
func (l *Log) Follow() *Cursor {
	c := &Cursor{log: l, lost: true, sent: l.next(), acked: l.next()}
	l.standbys[c] = true
	return c
}

// Close ends it.
func (c *Cursor) Close() {
	delete(c.log.standbys, c)
	if len(c.log.standbys) == 0 {
		if len(c.log.pending) > 0 {
			c.log.first++ // nobody has it
		}
		c.log.clear() // what comes after it is not noted: it would be old news to the next
	}
	c.log.trim()
}

// Lost tells that the standby needs a snapshot.
func (c *Cursor) Lost() bool { return c.lost }

// Rewind is called before the table is read for a snapshot, and gives its opening.
// What happens from here on follows it.
func (c *Cursor) Rewind() Message {
	c.base = c.log.next()
	c.lost, c.whole, c.sent, c.acked = false, false, c.base, c.base
	return Message{Kind: Begin, Term: c.log.Term, Seq: c.base}
}

// End closes the snapshot.
func (c *Cursor) End() Message {
	return Message{Kind: End, Term: c.log.Term, Seq: c.base}
}

// Whole notes that the standby's kernel has the snapshot that ended so.
func (c *Cursor) Whole(seq uint64) { c.whole = c.whole || !c.lost && seq == c.base }

// Complete tells that the standby lacks nothing but the latest batches, and gets them.
func (c *Cursor) Complete() bool { return !c.lost && c.whole }

// CaughtUp tells that the standby has everything that was added.
func (c *Cursor) CaughtUp() bool {
	return !c.lost && c.whole && c.acked == c.log.next() && len(c.log.pending) == 0
}

// Next is the batch to send now; false when there is none.
func (c *Cursor) Next() (Batch, bool) {
	if c.lost || c.sent >= c.log.next() {
		return Batch{}, false
	}
	b := c.log.batches[c.sent-c.log.first]
	c.sent++
	return b, true
}

// Ack notes that the standby's kernel has all up to a batch, and returns those
// batches that are news.
func (c *Cursor) Ack(seq uint64) []Batch {
	if c.lost || seq < c.acked || seq >= c.sent {
		return nil
	}
	done := append([]Batch(nil), c.log.batches[c.acked-c.log.first:seq+1-c.log.first]...)
	c.acked = seq + 1
	c.log.trim()
	return done
}

// Lag is for how long the oldest change has waited that the standby has not
// acknowledged; 0: it has everything.
func (c *Cursor) Lag(now time.Duration) time.Duration {
	switch l := c.log; {
	case !c.lost && c.acked < l.next():
		return now - l.batches[c.acked-l.first].At
	case len(l.pending) > 0:
		return now - l.since
	}
	return 0
}

// Bytes that are kept for standbys that lag.
func (l *Log) Bytes() int { return l.bytes }
