package stream

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/sallyport/sallyport/flows"
)

// uploading is how long a standby whose table is wanted may be silent, while other
// standbys wait for it.
const uploading = 2 * time.Second

// adopt asks the standby for its table, if that has what the holder's has not.
func (st *stream) adopt(ctx context.Context, have flows.Position, log *slog.Logger) error {
	f, began := st.feed, time.Now()
	f.adopting.Lock()
	defer f.adopting.Unlock()
	f.mu.Lock()
	lacks, term := f.log.Lacks(have, f.now()), f.log.Term
	f.mu.Unlock()
	if !lacks {
		return nil
	}
	own, err := f.kernel.Flows()
	if err != nil {
		return err
	}
	if err := f.kernel.Flush(ctx); err != nil {
		return err
	}
	if err := st.conn.send(flows.Message{Kind: flows.Ask, Term: term}); err != nil {
		return err
	}
	f.mu.Lock()
	adoption := f.log.Adopt(have, own)
	f.mu.Unlock()
	changed, err := st.take(adoption)
	log.Info("a standby's table was newer", "vip", f.vip, "standby", st.name, "changed", changed, "took_ms", time.Since(began).Milliseconds())
	if changed > 0 {
		// The end of what gave way would be taken for that of what has its place, and
		// who follows already is told of nothing that began so.
		err = errors.Join(err, f.kernel.Flush(ctx))
		f.Reset()
	}
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	adoption.Done()
	return nil
}

// take has the kernel adopt what the standby sends.
func (st *stream) take(adoption *flows.Adoption) (changed int, err error) {
	f := st.feed
	for {
		m, err := st.conn.receive(uploading)
		if err != nil {
			return changed, err
		}
		f.mu.Lock()
		changes, last, err := adoption.Step(f.now(), m)
		ended := f.ended
		f.mu.Unlock()
		switch {
		case err != nil:
			return changed, err
		case ended:
			return changed, errors.New("it is not held here any more")
		}
		if len(changes) > 0 {
			changed += len(changes)
			if err := f.kernel.Adopt(changes); err != nil {
				return changed, err
			}
		}
		if last {
			return changed, nil
		}
	}
}

// sendFlows sends a table in parts.
func (c *conn) sendFlows(term uint64, all []flows.Flow) error {
	part := make([]flows.Change, 0, flows.MaxChanges)
	for len(all) > 0 {
		part = part[:0]
		for _, flow := range all[:min(len(all), flows.MaxChanges)] {
			part = append(part, flows.Change{Op: flows.Put, Flow: flow})
		}
		all = all[len(part):]
		if err := c.send(flows.Message{Kind: flows.Snapshot, Term: term, Changes: part}); err != nil {
			return err
		}
	}
	return nil
}

// upload gives the holder what this standby's table has.
func (w *Following) upload(c *conn, term uint64) error {
	all, err := w.Table.Live()
	if err != nil {
		return err
	}
	if err := c.sendFlows(term, all); err != nil {
		return err
	}
	end := flows.Message{Kind: flows.Merge, Term: term}
	if w.Whole {
		end.Kind = flows.End
	}
	return c.send(end)
}
