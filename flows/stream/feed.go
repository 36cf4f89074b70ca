package stream

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sallyport/sallyport/flows"
)

// Feed is what this member tells about one VIP for as long as it holds it.
type Feed struct {
	vip     string
	kernel  Kernel
	observe func(lag time.Duration)
	now     func() time.Duration

	mu      sync.Mutex
	log     *flows.Log
	news    chan struct{} // closed when there is a new batch, or the end
	heard   chan struct{} // closed when a standby has acknowledged something, or at the end
	ended   bool
	streams map[*stream]bool

	adopting sync.Mutex // one table at a time; taken before mu

	bytes     atomic.Uint64
	snapshots atomic.Uint64
}

// kept is how many bytes wait for a standby that lags before it gets a snapshot
// instead: some hundred thousand connections.
const kept = 8 << 20

// Kernel is where a holder's flows are.
type Kernel interface {
	// Flows are all that there are, those that were not added yet too.
	Flows() ([]flows.Flow, error)
	// Flush returns when everything that had happened before the call has been added.
	Flush(ctx context.Context) error
	// Adopt makes changes that a standby's table calls for; what clashes with a connection
	// that is there gives way to it. That something begins so is not added.
	Adopt(changes []flows.Change) error
}

func newFeed(vip string, term uint64, have flows.Position, kernel Kernel, now func() time.Duration, observe func(time.Duration)) *Feed {
	log := flows.NewLog(term, kept, now())
	log.Have = have
	return &Feed{
		vip: vip, kernel: kernel, now: now, observe: observe,
		log: log, news: make(chan struct{}), heard: make(chan struct{}), streams: map[*stream]bool{},
	}
}

// Add tells the standbys of changes. It never waits for any of them.
func (f *Feed) Add(changes ...flows.Change) {
	f.mu.Lock()
	defer f.mu.Unlock()
	waiting := 0
	for _, c := range changes {
		waiting = f.log.Add(f.now(), c)
	}
	if waiting > 0 {
		f.log.Seal()
		f.wake()
	}
}

// Raise goes on in a newer term, in which this member holds again. Nobody has held
// between for those who still follow: they would follow him. Those who did follow
// another come anew, and say so.
func (f *Feed) Raise(term uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.log.Raise(term, f.now())
}

// Position of the kernel's flows, for when this member follows another.
func (f *Feed) Position() flows.Position {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.log.Position()
}

func (f *Feed) term() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.log.Term
}

// Reset says that changes were missed: every standby gets a snapshot.
func (f *Feed) Reset() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.log.Reset()
	f.wake()
}

func (f *Feed) wake() {
	close(f.news)
	f.news = make(chan struct{})
}

// end makes the streams end.
func (f *Feed) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended {
		return
	}
	f.ended = true
	f.wake()
	close(f.heard)
	for s := range f.streams {
		_ = s.conn.NetConn().Close() // at once, whatever is being written
	}
}

// Standby is how one of them does.
type Standby struct {
	Name     string
	Lag      time.Duration
	CaughtUp bool
	// Complete tells that it lacks nothing but what it lags by.
	Complete bool
}

// Feedback of a feed.
type Feedback struct {
	Standbys  []Standby
	Bytes     uint64 // both ways
	Snapshots uint64
	Kept      int // bytes that wait for a standby
}

// Feedback as of now.
func (f *Feed) Feedback() Feedback {
	f.mu.Lock()
	defer f.mu.Unlock()
	b := Feedback{Bytes: f.bytes.Load(), Snapshots: f.snapshots.Load(), Kept: f.log.Bytes()}
	for s := range f.streams {
		b.Standbys = append(b.Standbys, Standby{Name: s.name, Lag: s.cursor.Lag(f.now()), CaughtUp: s.cursor.CaughtUp(), Complete: s.cursor.Complete()})
	}
	return b
}

// Await returns when a standby has everything that was added before the call.
func (f *Feed) Await(ctx context.Context, standby string) error {
	for {
		f.mu.Lock()
		caughtUp, ended, heard := false, f.ended, f.heard
		for s := range f.streams {
			caughtUp = caughtUp || s.name == standby && s.cursor.CaughtUp()
		}
		f.mu.Unlock()
		switch {
		case ended:
			return fmt.Errorf("wait for %s to catch up with VIP %s: it is not held here any more", standby, f.vip)
		case caughtUp:
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s to catch up with VIP %s: %w", standby, f.vip, ctx.Err())
		case <-heard:
		}
	}
}
