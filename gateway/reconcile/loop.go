// Package reconcile runs a level-triggered function: soon after it is asked to,
// many askings at once being one run, again after a failure, and now and then
// unasked, so that what others changed in the kernel is mended.
package reconcile

import (
	"context"
	"log/slog"
	"time"
)

// Loop runs Do. The zero durations take the defaults.
type Loop struct {
	Name string
	Do   func(context.Context) error
	// Settle is how long a first asking waits for others that belong to it;
	// default 2 ms.
	Settle time.Duration
	// Retry is the first wait after a failure, doubled up to Resync; default 200 ms.
	Retry time.Duration
	// Resync is the longest time without a run; default 30 s.
	Resync time.Duration
	Log    *slog.Logger

	kick chan struct{}
}

// New gives a loop ready for Kick and Run.
func New(name string, log *slog.Logger, do func(context.Context) error) *Loop {
	return &Loop{
		Name: name, Do: do, Log: log, kick: make(chan struct{}, 1),
		Settle: 2 * time.Millisecond, Retry: 200 * time.Millisecond, Resync: 30 * time.Second,
	}
}

// Kick asks for a run. It never blocks.
func (l *Loop) Kick() {
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

// Run serves until the context ends. The first run waits for the first Kick.
func (l *Loop) Run(ctx context.Context) error {
	timer := time.NewTimer(l.Resync)
	defer timer.Stop()
	timer.Stop()
	retry := l.Retry
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.kick:
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(l.Settle):
			}
			select { // what was asked meanwhile is served by this run
			case <-l.kick:
			default:
			}
		case <-timer.C:
		}
		err := l.Do(ctx)
		switch {
		case err == nil:
			retry = l.Retry
			timer.Reset(l.Resync)
		case ctx.Err() != nil:
			return nil
		default:
			l.Log.Error("apply failed, will be retried", "loop", l.Name, "retry_in_ms", retry.Milliseconds(), "error", err)
			timer.Reset(retry)
			retry = min(2*retry, l.Resync)
		}
	}
}
