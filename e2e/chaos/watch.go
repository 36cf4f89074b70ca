package chaos

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sallyport/sallyport/e2e/lab"
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
	if v := w.arp.Proven(); len(v) > 0 {
		errs = append(errs, violated("two nodes answer for one VIP, %d times, first: %s", len(v), v[0]))
	}
	if late := w.arp.Violations(); len(late) > r.late {
		r.say("  heard late, or spoken late: %s", late[len(late)-1])
		r.late = len(late)
	}
	errs = append(errs, r.refused())
	for _, t := range w.talkers {
		if err := t.rightSources(since); err != nil {
			errs = append(errs, violated("wrong source: %w", err))
		}
	}
	r.checked = now
	return errors.Join(append(errs, r.kept(since))...)
}

// refused says what the partner got from others than the VIPs. A node that has booted is
// forgiven what its new pods say in answer to what was sent to the old ones, until its agent
// has a view: a reset, under the pod's own address. Nobody else's is, nor anything that the
// node has masqueraded, nor a packet that is no reset.
func (r *run) refused() error {
	refused, err := r.world.Partner.Refused()
	errs := []error{err}
	forgiven := false
	for _, p := range refused {
		what := fmt.Sprintf("the partner got %d packets from %s (%s port %d, resets: %t)", p.Packets, p.Source, p.Protocol, p.Port, p.Reset)
		if p.Reset && slices.ContainsFunc(r.booted, func(j int) bool { return lab.PodCIDR(j).Contains(p.Source) }) {
			r.say("  at a boot %s", what)
			forgiven = true
			continue
		}
		errs = append(errs, violated("%s", what))
	}
	if forgiven {
		errs = append(errs, r.world.Partner.ForgetRefused())
	}
	return errors.Join(errs...)
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
