package replica

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

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
	queue     queue
	wake      chan struct{}

	mu       sync.Mutex
	lost     uint64 // connections that are on no record
	overruns uint64 // as often something was left out
}

func newAuditor(cfg Audit, zone uint16, listener func() *conntrack.Listener, log *slog.Logger) *auditor {
	return &auditor{
		cfg: cfg, log: log, zone: zone, listener: listener, journal: journal.New(cfg.Config),
		queue: queue{most: cfg.Queue}, wake: make(chan struct{}, 1),
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
			a.queue.owe(gaps{fresh: true})
			a.rouse()
		}
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
	gather = 50 * time.Millisecond
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
			a.book.Counting = conntrack.Counting() // the doctor may have asked for it meanwhile
			a.journal.Flush(time.Now())
		}
		records = a.drain(records[:0], &spare)
		a.write(records)
		if a.queue.incomplete() && time.Since(looked) >= lookup {
			a.write(a.look(ctx, records[:0], &spare))
			looked = time.Now()
		}
	}
}

// drain takes down what waits.
func (a *auditor) drain(out []audit.Record, spare *[]told) []audit.Record {
	all := a.queue.take(*spare)
	*spare = all
	d := a.directory.Load()
	for i := range all {
		switch t := &all[i]; t.what {
		case sighted:
			out = a.book.See(out, &t.seen, t.at, d)
		case holding:
			out = a.book.Holder(out, t.vip, t.holder, t.at, d)
		case drifting:
			a.book.Adrift(t.vip)
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
