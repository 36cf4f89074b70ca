package chaos

import (
	"errors"
	"fmt"
	"time"
)

// violation is an error of what is never to be: there is nothing to wait for.
type violation struct{ error }

func (v violation) Unwrap() error { return v.error }

func violated(format string, args ...any) error { return violation{fmt.Errorf(format, args...)} }

// check looks at all that was seen since the last time: two nodes that answered for a VIP,
// packets with a wrong source, connections that broke.
func (r *run) check() error {
	w, now := r.world, time.Now()
	// What was asked before may have been answered since.
	since := r.checked.Add(-time.Minute)
	var errs []error
	for _, v := range w.arp.Violations() {
		errs = append(errs, violated("two nodes answer for one VIP: %s", v))
	}
	refused, err := w.Partner.Refused()
	errs = append(errs, err)
	for _, p := range refused {
		errs = append(errs, violated("the partner got %d packets from %s (%s port %d)", p.Packets, p.Source, p.Protocol, p.Port))
	}
	for _, t := range w.talkers {
		if err := t.rightSources(since); err != nil {
			errs = append(errs, violated("wrong source: %w", err))
		}
	}
	r.checked = now
	return errors.Join(append(errs, r.kept(since))...)
}

// kept looks whether what was established is. What several faults at once have cost is
// let go, so that others take its place.
func (r *run) kept(since time.Time) error {
	var errs []error
	for j, t := range r.world.talkers {
		err := t.kept(since)
		switch {
		case err == nil:
		case r.now.Single():
			errs = append(errs, violated("a single fault has cost a connection: %w", err))
		default:
			r.lost++
			r.say("  several faults at once have cost this: %v", err)
			r.world.hangUp(j)
		}
	}
	return errors.Join(errs...)
}
