package replica

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/audit"
	"github.com/sallyport/sallyport/audit/journal"
	"github.com/sallyport/sallyport/election/priority"
	"github.com/sallyport/sallyport/flows/conntrack"
	"github.com/sallyport/sallyport/gateway"
	"github.com/sallyport/sallyport/gateway/host"
)

// Audit says how the connections of audited routes are recorded.
type Audit struct {
	journal.Config
	Starts bool // a record at the beginning, too
	Queue  int  // how many sightings wait for the disk at most
}

// auditor writes down what the mirror hears of. It never makes the mirror wait: what it
// has no time for is left out, and what came of that is looked up in the kernel.
type auditor struct {
	cfg      Audit
	log      *slog.Logger
	zone     uint16
	listener func() *conntrack.Listener
	book     audit.Book
	journal  *journal.Journal
	found    int64 // by the book, and accounted for

	directory atomic.Pointer[audit.Directory]
	wake      chan struct{}

	mu       sync.Mutex
	waiting  []told
	began    uint64 // connections whose beginning was left out since the last look at the table
	fresh    bool   // there are routes whose connections of before are to be looked up
	left     bool   // something was left out
	overrun  bool   // by the kernel
	lost     uint64 // connections that are on no record
	overruns uint64 // as often something was left out
}

// told is one thing to take down: a sighting, or a change of the holder.
type told struct {
	at     time.Time
	seen   audit.Sighting // with a Kind
	vip    netip.Addr
	holder string
	what   note
}

// note is what told is about, besides sightings.
type note uint8

const (
	sighted   note = iota
	holding        // who holds the VIP
	inStep         // all its connections are known that the holder has
	outOfStep      // no more
)

func newAuditor(cfg Audit, zone uint16, listener func() *conntrack.Listener, log *slog.Logger) *auditor {
	return &auditor{
		cfg: cfg, log: log, zone: zone, listener: listener, journal: journal.New(cfg.Config), wake: make(chan struct{}, 1),
		book: audit.Book{Gateway: cfg.Gateway, Starts: cfg.Starts, Counting: conntrack.Counting()},
	}
}

// learn takes what a plan says of pods and routes, before the kernel has it: whatever
// the plan admits is on record, and what it ends has it as the reason. A nil auditor
// does nothing, here and below.
func (a *auditor) learn(plan gateway.Plan) {
	if a != nil {
		before := a.directory.Load()
		a.directory.Store(audit.NewDirectory(plan.Admitted(), before))
		if slices.ContainsFunc(plan.Routes, func(r gateway.PlannedRoute) bool { return r.Audit && !before.Concerns(r.ID) }) {
			a.mu.Lock()
			a.fresh = true
			a.mu.Unlock()
			a.rouse()
		}
	}
}

// hear takes the events of audited routes.
func (a *auditor) hear(batch []conntrack.Event) {
	if a == nil {
		return
	}
	d := a.directory.Load()
	var at time.Time
	for i := range batch {
		ev := &batch[i]
		if ev.Kind == conntrack.Lost {
			a.overran()
			continue
		}
		if !d.Concerns(routeOf(ev.Entry.Mark)) {
			continue
		}
		s, ok := sighting(ev)
		if !ok {
			continue
		}
		if at.IsZero() {
			at = time.Now()
		}
		a.take(told{at: at, seen: s})
	}
	if !at.IsZero() {
		a.rouse()
	}
}

// sighting of an event; false for one that says nothing new.
func sighting(ev *conntrack.Event) (audit.Sighting, bool) {
	e := &ev.Entry
	t := &e.Original
	s := audit.Sighting{
		ID: e.ID(), VIP: e.Reply.Dst, Port: e.Reply.DstPort, Route: routeOf(e.Mark), Replied: e.Status&conntrack.SeenReply != 0,
		Over: e.Over(), Reset: e.Broken(),
	}
	switch t.Protocol {
	case unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6:
		s.Key, s.Port = audit.KeyOf(t.Src, t.Dst, t.ICMPID, uint16(t.ICMPType)<<8|uint16(t.ICMPCode), t.Protocol), e.Reply.ICMPID
	default:
		s.Key = audit.KeyOf(t.Src, t.Dst, t.SrcPort, t.DstPort, t.Protocol)
	}
	switch {
	case ev.Kind == conntrack.New:
		s.Kind = audit.Began
	case ev.Kind == conntrack.Destroyed:
		s.Kind, s.Expired, s.Counted = audit.Gone, e.Timeout == 0, e.Counted
		s.Sent, s.Received = audit.Traffic(e.Sent), audit.Traffic(e.Received)
	case s.Over:
		s.Kind = audit.Closed
	default:
		return s, false
	}
	return s, true
}

// take keeps it until there is time, if there is room.
func (a *auditor) take(t told) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.waiting) < a.cfg.Queue || t.what != sighted { // of those there are few
		a.waiting = append(a.waiting, t)
		return
	}
	a.left = true
	if t.seen.Kind == audit.Began {
		a.began++
	}
}

// overran notes that the kernel had more to tell than was read.
func (a *auditor) overran() {
	a.mu.Lock()
	a.left, a.overrun = true, true
	a.mu.Unlock()
	a.rouse()
}

// holds notes who holds a VIP.
func (a *auditor) holds(vip netip.Addr, holder string) {
	if a != nil {
		a.take(told{at: time.Now(), what: holding, vip: vip, holder: holder})
		a.rouse()
	}
}

// settled notes that this kernel has all connections that the holder has: not before their
// events are heard. It waits for nobody.
func (a *auditor) settled(ctx context.Context, vip netip.Addr) {
	if a == nil {
		return
	}
	go func() {
		if a.listener().Flush(ctx) == nil {
			a.take(told{at: time.Now(), what: inStep, vip: vip})
		}
	}()
}

func (a *auditor) unsettled(vip netip.Addr) {
	if a != nil {
		a.take(told{at: time.Now(), what: outOfStep, vip: vip})
	}
}

func (a *auditor) rouse() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

const (
	// gather is for how long sightings gather.
	gather = 20 * time.Millisecond
	// flushed is how often records are written.
	flushed = time.Second
	// lookup is the least time between two readings of the whole table.
	lookup = 5 * time.Second
)

// auditPatience is how long a stopping gateway waits for a disk that does not answer.
const auditPatience = 2 * time.Second

// run returns when all is written, or the disk does not answer.
func (a *auditor) run(ctx context.Context) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		priority.Ordinary(func() { a.keep(ctx) })
	}()
	<-ctx.Done()
	select {
	case <-done:
	case <-time.After(auditPatience):
		a.log.Error("the audit log cannot be written: its last records are lost", "path", a.cfg.Path)
	}
}

// keep takes down until the context ends, then what is left.
func (a *auditor) keep(ctx context.Context) {
	ticker := time.NewTicker(flushed)
	defer ticker.Stop()
	var looked time.Time
	var records []audit.Record
	var spare []told
	for {
		select {
		case <-ctx.Done():
			records = a.drain(records[:0], &spare)
			records = a.book.Stop(records, time.Now(), a.directory.Load())
			a.write(records)
			a.journal.End(time.Now())
			return
		case <-a.wake:
			select {
			case <-ctx.Done():
				continue
			case <-time.After(gather):
			}
		case <-ticker.C:
			a.journal.Flush(time.Now())
		}
		records = a.drain(records[:0], &spare)
		a.write(records)
		if a.incomplete() && time.Since(looked) >= lookup {
			a.write(a.look(ctx, records[:0], &spare))
			looked = time.Now()
		}
	}
}

func (a *auditor) incomplete() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.fresh || a.left
}

// drain takes down what waits.
func (a *auditor) drain(out []audit.Record, spare *[]told) []audit.Record {
	a.mu.Lock()
	all := a.waiting
	a.waiting = (*spare)[:0]
	a.mu.Unlock()
	*spare = all
	d := a.directory.Load()
	for i := range all {
		switch t := &all[i]; t.what {
		case sighted:
			out = a.book.See(out, &t.seen, t.at, d)
		case holding:
			out = a.book.Holder(out, t.vip, t.holder, t.at)
		default:
			a.book.Settled(t.vip, t.what == inStep)
		}
	}
	if cap(*spare) > 1<<14 { // a crowd's memory is not kept for the quiet that follows
		*spare = nil
	}
	return out
}

func (a *auditor) write(records []audit.Record) {
	now := time.Now()
	for i := range records {
		a.journal.Add(&records[i], now)
	}
}

// look compares the book with the kernel's table. What began and was forgotten while
// something was left out is on no record, and counted.
func (a *auditor) look(ctx context.Context, out []audit.Record, spare *[]told) []audit.Record {
	a.mu.Lock()
	fresh, left, began, overrun := a.fresh, a.left, a.began, a.overrun
	a.fresh, a.left, a.began, a.overrun = false, false, 0, false
	a.mu.Unlock()
	d := a.directory.Load()
	var present []audit.Sighting
	_, err := conntrack.Dump(conntrack.IPv4, conntrack.Mark{}, func(e *conntrack.Entry) bool {
		if e.Zone == a.zone && d.Concerns(routeOf(e.Mark)) {
			s, _ := sighting(&conntrack.Event{Entry: *e})
			s.Kind = audit.Present
			present = append(present, s)
		}
		return false
	})
	if err != nil {
		a.log.Warn("the record of connections is incomplete for now", "error", err)
		a.mu.Lock()
		defer a.mu.Unlock()
		a.fresh, a.left, a.began, a.overrun = a.fresh || fresh, a.left || left, a.began+began, a.overrun || overrun
		return out
	}
	out, missing := a.book.Compare(out, present, fresh, time.Now(), d)
	// What the kernel has told by now comes before what is missing, and before counting.
	if listener := a.listener(); listener != nil && listener.Flush(ctx) == nil {
		out = a.drain(out, spare)
		out = a.book.Miss(out, missing, time.Now(), d)
	}
	found := a.book.Found() - a.found
	if overrun || fresh { // what is found may have begun long ago, and says nothing of what was left out
		a.found += found
	}
	if !overrun && began == 0 {
		return out
	}
	r := audit.Record{Time: time.Now(), Event: audit.LostEvent, Gateway: a.cfg.Gateway, Cause: "the kernel told more than was read"}
	switch {
	case overrun:
	case fresh:
		r.Cause = "more connections than were written down in time"
	default:
		// Of what was left out since, some may be found already: it counts the next time.
		n := uint64(max(0, int64(began)-found))
		a.found += int64(began - n)
		r.Lost, r.Cause = &n, "more connections than were written down in time"
		if n == 0 {
			return out
		}
		a.log.Warn("connections are missing from the audit log", "connections", n)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.overruns++
	if r.Lost != nil {
		a.lost += *r.Lost
	}
	return append(out, r)
}

// describe is what a status says of it; nil: there is none.
func (a *auditor) describe() *host.Audit {
	if a == nil {
		return nil
	}
	s := a.journal.State()
	a.mu.Lock()
	defer a.mu.Unlock()
	return &host.Audit{Lines: s.Lines, Unwritten: s.Lost, Missing: a.lost, Gaps: a.overruns, Error: s.Error}
}

// problems are what keeps it from writing.
func (a *auditor) problems() []gateway.Problem {
	if a == nil {
		return nil
	}
	s := a.journal.State()
	if s.Error == "" {
		return nil
	}
	return []gateway.Problem{{
		Object: "audit log " + a.cfg.Path, Reason: gateway.Unreadable,
		Message: s.Error + ": records are lost until it can be written, and nothing else is; make room, or give --audit-log another path",
	}}
}

// unaudited are routes that ask for a record where none is kept.
func unaudited(cfg Config, plan gateway.Plan) (problems []gateway.Problem) {
	for _, r := range plan.Routes {
		if r.Audit && cfg.Audit == nil {
			problems = append(problems, gateway.Problem{
				Object: "EgressRoute " + r.Name, Field: "spec.audit", Reason: gateway.Misconfigured,
				Message: "gateway " + cfg.Gossip.Name + " keeps no audit log: run it with --audit-log, which needs --replicate, or remove audit: true",
			})
		}
	}
	return problems
}
