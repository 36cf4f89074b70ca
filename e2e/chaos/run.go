package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sallyport/sallyport/e2e/lab"
)

// Options of a run.
type Options struct {
	Plan
	// Duration after which no further step begins.
	Duration time.Duration
	// First is the number of the first step that is carried out; 0 and 1: all are.
	First int
	// Timing of the gateways.
	Timing string
	// Reports is the folder for what one wants to see of a violation; a run has one of its
	// seed in it.
	Reports string
	// Lab to run it in; VIPs and nodes are chaos's own.
	Lab lab.Options
	// Out is told what happens.
	Out io.Writer
}

// Run breaks a lab until the time is over, and gives what did not hold.
func Run(ctx context.Context, o Options) (err error) {
	o.Lab.GatewayArgs = append(o.Lab.GatewayArgs, "--timing", o.Timing)
	began := time.Now()
	w, err := build(ctx, o.Lab)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	r := &run{Options: o, world: w, began: began, checked: began}
	r.say("everything runs; seed %d, timing %s", o.Seed, o.Timing)
	for s := range o.Steps() {
		if s.Number < o.First {
			continue
		}
		if time.Since(began) > o.Duration || ctx.Err() != nil {
			break
		}
		if err := r.step(ctx, s); err != nil {
			return r.report(s, err)
		}
		r.steps++
	}
	r.say("%d steps, all held but for %d times connections lost where several faults met; %d words for a VIP came late (seed %d)",
		r.steps, r.lost, r.late, o.Seed)
	return ctx.Err()
}

// run is what was done so far.
type run struct {
	Options
	world   *world
	began   time.Time
	checked time.Time // until when everything was looked at
	now     Step
	steps   int
	lost    int
	late    int   // words of who had ceased to hold
	booted  []int // nodes, in this step
	history []string
}

func (r *run) say(format string, args ...any) {
	line := fmt.Sprintf("[%6.1f s] %s", time.Since(r.began).Seconds(), fmt.Sprintf(format, args...))
	r.history = append(r.history, clock(time.Now())+" "+line)
	fmt.Fprintln(r.Out, line)
}

// step strikes, waits, mends, and looks at everything after each.
func (r *run) step(ctx context.Context, s Step) error {
	w := r.world
	r.now, r.booted = s, nil
	at, err := w.places(ctx)
	if err != nil {
		return err
	}
	r.say("%s; n%d holds", s, at[Holder])
	var mends []func() error
	for _, f := range s.Faults {
		mend, err := w.strike(ctx, f, at)
		if err != nil {
			return fmt.Errorf("%s: %w", f, err)
		}
		mends = append(mends, mend)
		if f.Kind == PowerCut {
			r.booted = append(r.booted, at[f.Role])
		}
	}
	struck := time.Now()
	if reach := s.Reach(); s.Await && len(reach) > 0 {
		var nodes []int
		for _, role := range reach {
			nodes = append(nodes, at[role])
		}
		if err := w.await(ctx, backWithin, w.flows(r.kept, nodes...)); err != nil {
			return fmt.Errorf("a quorum is whole, but traffic is not back while the fault lasts: %w", err)
		}
		r.say("  traffic back %.1f s after it", time.Since(struck).Seconds())
	}
	if err := r.check(); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(s.Hold): // how long it lasts is the fault
	}
	for _, mend := range mends {
		if err := mend(); err != nil {
			return fmt.Errorf("end what was done: %w", err)
		}
	}
	mended := time.Now()
	if err := w.Heal(); err != nil {
		return err
	}
	if err := w.whole(ctx, r.kept); err != nil {
		return fmt.Errorf("all faults have ended, but not all is well: %w", err)
	}
	r.say("  whole %.1f s after its end", time.Since(mended).Seconds())
	return r.check()
}

// report writes what is to be seen of a violation.
func (r *run) report(s Step, err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	r.say("VIOLATED in %s: %v", s, err)
	dir := filepath.Join(r.Reports, fmt.Sprintf("chaos-%d", r.Seed))
	failed := errors.Join(r.world.WriteReport(dir), r.writeARP(filepath.Join(dir, "arp.txt")), os.WriteFile(filepath.Join(dir, "history.txt"), []byte(strings.Join(r.history, "\n")+"\n"), 0o644))
	last := r.history[max(0, len(r.history)-12):]
	return errors.Join(fmt.Errorf("seed %d, %s, at %s: %w\n\nthe last of what was done:\n%s\n\nrules, connections and logs of all nodes: %s\nagain: make chaos SEED=%d DURATION=%s TIMING=%s",
		r.Seed, s, clock(time.Now()), err, strings.Join(last, "\n"), dir, r.Seed, r.Duration, r.Timing), failed)
}

// writeARP lists who spoke for the VIPs in the last minute.
func (r *run) writeARP(path string) error {
	var b strings.Builder
	for _, vip := range r.world.Options.VIPs {
		for _, u := range r.world.arp.Utterances(vip) {
			if time.Since(u.At) < time.Minute {
				fmt.Fprintf(&b, "%s %s n%d", clock(u.At), u.VIP, u.Node)
				if u.Answer {
					fmt.Fprintf(&b, " asked %s", clock(u.Asked))
				}
				b.WriteString("\n")
			}
		}
	}
	return os.WriteFile(path, []byte(b.String()), 0o644)
}
