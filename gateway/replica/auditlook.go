package replica

import (
	"context"
	"time"

	"github.com/sallyport/sallyport/audit"
	"github.com/sallyport/sallyport/flows/conntrack"
)

// look compares the book with the kernel's table. What began and was forgotten while
// something was left out is on no record, and counted.
func (a *auditor) look(ctx context.Context, out []audit.Record, spare *[]told) []audit.Record {
	owed := a.queue.owed()
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
		a.queue.owe(owed)
		return out
	}
	out, missing := a.book.Compare(out, present, owed.fresh, time.Now(), d)
	// What the kernel has told by now comes before what is missing, and before counting.
	if listener := a.listener(); listener != nil && listener.Flush(ctx) == nil {
		out = a.drain(out, spare)
		out = a.book.Miss(out, missing, time.Now(), d)
	}
	found := a.book.Found() - a.found
	if owed.overrun || owed.fresh { // what is found may have begun long ago, and says nothing of what was left out
		a.found += found
	}
	if !owed.overrun && owed.began == 0 {
		return out
	}
	r := audit.Record{Time: time.Now(), Event: audit.LostEvent, Gateway: a.cfg.Gateway, Cause: "the kernel told more than was read"}
	switch {
	case owed.overrun:
	case owed.fresh:
		r.Cause = "more connections than were written down in time"
	default:
		// Of what was left out since, some may be found already: it counts the next time.
		n := uint64(max(0, int64(owed.began)-found))
		a.found += int64(owed.began - n)
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
