package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/sallyport/sallyport/e2e/lab"
	"github.com/sallyport/sallyport/election"
)

// fencing is what the partner's segment hears around the end of a gateway whose kernel
// lives on.
type fencing struct {
	silence trials // from the last renewal to the last word of the old holder
	heir    trials // from the fault to the first answer of the new one
	both    int
}

var ends = []struct {
	name, title  string
	strike, mend func(*ours, int) error
}{
	{"pause", "`SIGSTOP`", (*ours).pause, (*ours).resume},
	{"kill", "`kill -9`", (*ours).kill, (*ours).start},
}

var fenceTimings = []string{"default", "fast"}

// fence measures how the kernel ends a holder that no longer renews.
func (b *bench) fence(ctx context.Context) (string, error) {
	var names []string
	for _, e := range ends {
		names = append(names, e.name)
	}
	if err := b.among("fence", names, fenceTimings); err != nil {
		return "", err
	}
	rows := [][]string{{"median / p95, ms", "", "last renewal to silence", "at most", "fault to the new holder's answer", "two owners"}}
	verdicts := ""
	for _, timing := range fenceTimings {
		if !b.wantsOf(timing, fenceTimings) {
			continue
		}
		results, err := b.fenceWith(ctx, timing, names)
		if err != nil {
			return "", err
		}
		lease := election.Profiles[timing].Lease.Seconds()
		for i, e := range ends {
			r := results[i]
			if len(r.heir) == 0 {
				continue
			}
			most := r.silence.quantile(1)
			rows = append(rows, []string{e.title, "`" + timing + "`", r.silence.millis(), fmt.Sprintf("%.0f", 1e3*most), r.heir.millis(), fmt.Sprintf("%d of %d", r.both, len(r.heir))})
			verdicts += verdict(timing+", "+e.title+", last renewal to silence at most, ms", 1e3*most, 1e3*lease+20, most <= lease+.020, "%.0f")
			verdicts += verdict(timing+", "+e.title+", trials with two owners", float64(r.both), 0, r.both == 0, "%.0f")
		}
	}
	return `## The fence

A holder's gateway is stopped or killed; its kernel keeps the address and is asked for it by ARP every millisecond. The last renewal is heard on
the holder's own lo, the last word of the old holder and the first answer of the new one at the router's port.

` + table(rows) + "\n" + verdicts, nil
}

func (b *bench) fenceWith(ctx context.Context, timing string, names []string) (results [2]fencing, err error) {
	w, err := b.up("n", lab.Options{GatewayArgs: []string{"--timing", timing}})
	if err != nil {
		return results, err
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w\n%s", err, w.LogTails(15))
		}
		err = errors.Join(err, w.Close())
	}()
	o := &ours{}
	if err := o.raise(w); err != nil {
		return results, err
	}
	for n := range b.trials {
		for i, e := range ends {
			if !b.wantsOf(e.name, names) {
				continue
			}
			r := &results[i]
			err := errMoved
			for try := 0; try < 5 && errors.Is(err, errMoved); try++ {
				err = r.measure(ctx, o, election.Profiles[timing].Lease, e.strike, e.mend)
			}
			if err != nil {
				return results, fmt.Errorf("trial %d of %s: %w", n+1, e.name, err)
			}
			progress("fence %d/%d %-7s %-5s silent %4.1f ms after the last renewal, another answers %4.0f ms after the fault, two owners in %d", n+1, b.trials, timing, e.name, 1e3*last(r.silence), 1e3*last(r.heir), r.both)
		}
	}
	return results, nil
}

// errMoved says that who was struck had lost its lease by itself.
var errMoved = errors.New("the VIP moved before the fault: is the machine busy?")

func (r *fencing) measure(ctx context.Context, o *ours, lease time.Duration, strike, mend func(*ours, int) error) error {
	holder, err := o.holder()
	if err != nil {
		return err
	}
	vip := o.w.Options.VIPs[0]
	renewals, err := o.w.WatchRenewals(holder)
	if err != nil {
		return err
	}
	defer renewals.Stop()
	arp, err := o.w.WatchARP(time.Millisecond)
	if err != nil {
		return err
	}
	defer arp.Stop()
	if err := wait(ctx, 100*time.Millisecond+rand.N(100*time.Millisecond)); err != nil { // a moment between heartbeats by chance
		return err
	}
	at := time.Now()
	if err := strike(o, holder); err != nil {
		return err
	}
	if err := firstWord(arp, o.w, holder, at); err != nil {
		return err
	}
	if err := wait(ctx, 300*time.Millisecond); err != nil { // what the old one still says would be heard
		return err
	}
	renewed := renewals.Last(vip)
	var spoke, answered time.Time
	for _, u := range arp.Utterances(vip) {
		if u.Node == holder {
			spoke = u.At
		} else if u.Node != 0 && u.Answer && u.At.After(at) && answered.IsZero() {
			answered = u.At
		}
	}
	if err := errors.Join(mend(o, holder), o.whole()); err != nil {
		return err
	}
	if renewed.Before(at.Add(-lease)) || spoke.Before(renewed) || answered.IsZero() {
		return errMoved
	}
	r.silence.add(spoke.Sub(renewed))
	r.heir.add(answered.Sub(at))
	if len(arp.Proven()) > 0 {
		r.both++
	}
	return nil
}
