// Package host is what the agent and the gateway have in common on one host: the
// view of the cluster and its saved copy, the choice of netfilter applier, and
// the HTTP endpoint with status and metrics.
package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sallyport/sallyport/election/priority"
	"github.com/sallyport/sallyport/gateway"
	"github.com/sallyport/sallyport/gateway/lastview"
)

// Source delivers the whole view again whenever it changed, the first time after
// one complete pass. Run returns when its context ends.
type Source interface {
	Run(ctx context.Context, deliver func(gateway.Snapshot)) error
}

// View keeps the newest Snapshot of a source, and its last good one on disk for a
// start without the source.
type View struct {
	source  Source
	file    string
	changed func()
	log     *slog.Logger

	mu   sync.Mutex
	snap gateway.Snapshot
	have bool
	live bool
	good time.Time // when the source was last known to give all; zero: never
	// older is what is used of the saved view, as long as the source's own has not been
	// sound yet.
	older *gateway.Snapshot

	dirty chan struct{}
}

const (
	// patience is how long a start waits for the source before it takes the saved view.
	patience = time.Second
	// saveAfter is how long after a change the view is written to disk.
	saveAfter = 2 * time.Second
	// saving takes a hundredth of the time at most, as long as it is not put off for longer
	// than saveMost: a view of thousands of pods takes as long to spell out as to carry out.
	savePart, saveMost = 100, 15 * time.Second
)

// NewView calls changed whenever Snapshot has something new.
func NewView(source Source, stateDir, program string, changed func(), log *slog.Logger) *View {
	return &View{
		source: source, file: filepath.Join(stateDir, program+"-view.json"), changed: changed, log: log,
		dirty: make(chan struct{}, 1),
	}
}

// Snapshot is the newest view; false before there is any.
func (v *View) Snapshot() (gateway.Snapshot, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.snap, v.have
}

// Live says whether the view is the source's own and not the saved one.
func (v *View) Live() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.live
}

// Age is for how long the source has not given a view that is whole; false when it never
// has, nor was one saved.
func (v *View) Age() (time.Duration, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return time.Since(v.good), !v.good.IsZero()
}

// look enters whether the source gives all. One that follows changes gives nothing new
// while there are none, so that it has to be asked.
func (v *View) look(now time.Time) {
	if len(v.Problems()) > 0 {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.live && !v.snap.Doubtful() {
		v.good = now
	}
}

// watch looks every second until the context ends.
func (v *View) watch(ctx context.Context) error {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-ticker.C:
			v.look(now)
		}
	}
}

// Saved is the last good view of an earlier run, for as long as Run has not begun;
// false if there is none.
func (v *View) Saved() (gateway.Snapshot, bool) {
	s, err := lastview.Restore(v.file)
	return s, err == nil
}

// Problems are what keeps the source from giving a newer view, where it can tell.
func (v *View) Problems() []gateway.Problem {
	if s, ok := v.source.(interface{ Problems() []gateway.Problem }); ok {
		return s.Problems()
	}
	return nil
}

// Run follows the source until the context ends.
func (v *View) Run(ctx context.Context) error {
	v.open()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return v.source.Run(ctx, func(s gateway.Snapshot) {
			v.deliver(s)
			select {
			case v.dirty <- struct{}{}:
			default:
			}
		})
	})
	g.Go(func() error { return v.restore(ctx) })
	g.Go(func() error { return v.save(ctx) })
	g.Go(func() error { return v.watch(ctx) })
	return g.Wait()
}

// deliver takes a view of the source. Until the first that is sound, none takes
// anything away that an earlier run had: a file that broke while nobody looked, or a
// folder that is not mounted yet, must not open the way out. An object that is refused
// stays what it was, for as long as it is.
func (v *View) deliver(s gateway.Snapshot) {
	v.mu.Lock()
	if v.older != nil {
		switch {
		case s.Empty():
			s.Problems = append(s.Problems, gateway.Problem{
				Object: "source", Reason: gateway.Unreadable,
				Message: "it has no objects at all: the last good view is used until it has",
			})
		case !s.Doubtful():
			*v.older = s.Refused(*v.older)
		}
		s = s.WithMissing(*v.older)
		if v.older.Empty() {
			v.older = nil
		}
	}
	v.snap, v.have, v.live = s, true, true
	v.mu.Unlock()
	v.look(time.Now())
	v.changed()
}

// open reads the saved view, before the source is asked.
func (v *View) open() {
	s, err := lastview.Restore(v.file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		v.log.Error("the saved view cannot be used", "error", err)
	default:
		v.older = &s
		if info, err := os.Stat(v.file); err == nil {
			v.mu.Lock()
			defer v.mu.Unlock()
			v.good = info.ModTime()
		}
	}
}

// restore takes the saved view when the source gives nothing in time.
func (v *View) restore(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-time.After(patience):
	}
	v.mu.Lock()
	take := !v.have && v.older != nil
	if take {
		v.snap, v.have = *v.older, true
	}
	v.mu.Unlock()
	if take {
		v.log.Warn("the source gives nothing yet: the last good view is used", "file", v.file)
		v.changed()
	} else if !v.Live() {
		v.log.Warn("the source gives nothing yet and no view was saved: waiting", "file", v.file)
	}
	return nil
}

// save writes the view to disk a while after it changed: at once it would take the
// processor from the change itself.
func (v *View) save(ctx context.Context) error {
	pause := saveAfter
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-v.dirty:
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		s, _ := v.Snapshot()
		began := time.Now()
		var err error
		priority.Ordinary(func() { err = lastview.Save(v.file, s) })
		if err != nil {
			v.log.Error("the view is not saved: a restart without the source would start from an older one", "error", fmt.Errorf("save %s: %w", v.file, err))
		}
		pause = saveIn(time.Since(began))
	}
}

// saveIn is when to save after the next change, the last time having taken so long.
func saveIn(took time.Duration) time.Duration { return min(max(saveAfter, savePart*took), saveMost) }
