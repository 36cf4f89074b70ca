package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sallyport/sallyport/e2e/lab"
)

// fault is something that happens to the holder of the VIP.
type fault struct {
	name, title string
	// takesNode: the node's pods end too.
	takesNode bool
	// do strikes node j and says when exactly.
	do func(j int) (time.Time, error)
	// mend undoes it, and what that was.
	mend   func(j int) error
	mended string
}

func (d *demo) faults() []fault {
	restart := func(j int) error {
		_, err := d.StartGateway(j)
		return err
	}
	onGateway := func(f func(*lab.Program) error) func(int) (time.Time, error) {
		return func(j int) (time.Time, error) {
			p, err := d.Program(lab.Gateway, j)
			at := time.Now()
			if err == nil {
				err = f(p)
			}
			return at, err
		}
	}
	return []fault{
		{
			name: "power cut", title: "the node's power is cut: links dark, programs dead",
			takesNode: true, do: d.PowerCut,
			mend: func(j int) error {
				if err := d.Reboot(j); err != nil {
					return err
				}
				_, err := d.StartAgent(j)
				return errors.Join(err, restart(j))
			},
			mended: "rebooted, programs started",
		},
		{
			name: "kill -9", title: "its gateway process is killed (kill -9)",
			do: onGateway((*lab.Program).Kill), mend: restart, mended: "gateway started again",
		},
		{
			name: "SIGTERM", title: "its gateway is stopped in good order (SIGTERM)",
			do: onGateway((*lab.Program).Stop), mend: restart, mended: "gateway started again",
		},
		{
			name: "SIGSTOP", title: "its gateway hangs (SIGSTOP): it neither ends nor renews",
			do: onGateway((*lab.Program).Pause),
			mend: func(j int) error {
				p, err := d.Program(lab.Gateway, j)
				if err != nil {
					return err
				}
				return p.Continue()
			},
			mended: "gateway goes on (SIGCONT) without its lease",
		},
	}
}

// stroke is a fault under way.
type stroke struct {
	zero   time.Time
	holder int
	heir   lab.Tenure // the next to answer ARP; Node 0: none yet
	back   time.Time  // when every client had an answer by the heir
}

// look sees how far it has come.
func (s *stroke) look(d *demo) error {
	for _, t := range d.arp.Owners(d.vip) {
		if t.First.After(s.zero) && t.Node != s.holder && s.heir.Node == 0 {
			s.heir = t
		}
	}
	if s.heir.Node == 0 {
		return fmt.Errorf("nobody took over from %s", lab.NodeName(s.holder))
	}
	if s.back.IsZero() {
		back, err := d.flowing(s.heir.First)
		if err != nil {
			return err
		}
		s.back = back
	}
	return nil
}

const (
	// calm is how long nothing happens before a fault, for the reader and for the
	// picture to begin with undisturbed traffic.
	calm = 2500 * time.Millisecond
	// shown is how long a fault is watched at least: connections begun in the gap are
	// made when TCP asks again, after 1 s.
	shown = 1500 * time.Millisecond
)

// strike does a fault to whoever holds the VIP, shows what follows, and mends it.
func (d *demo) strike(ctx context.Context, f fault) error {
	if err := rest(ctx, calm); err != nil {
		return err
	}
	find := d.holder
	if f.takesNode {
		find = d.holderWithout
	}
	holder, err := find(ctx)
	if err != nil {
		return err
	}
	d.screen.title("%d. %s holds the VIP; %s", len(d.strokes)+1, lab.NodeName(holder), f.title)
	s := stroke{zero: time.Now(), holder: holder}
	type result struct {
		at  time.Time
		err error
	}
	done := make(chan result, 1)
	go func() {
		at, err := f.do(holder)
		done <- result{at, err}
	}()
	if err := d.watch(ctx, &s, func() (bool, error) {
		select {
		case r := <-done:
			s.zero, done = r.at, nil
			return true, r.err
		default:
			return done == nil, nil
		}
	}); err != nil {
		return fmt.Errorf("%s of %s: %w", f.name, lab.NodeName(holder), err)
	}
	d.report(f, &s)
	return d.mend(ctx, f, holder)
}

// watch paints until the fault was done and its end has been seen.
func (d *demo) watch(ctx context.Context, s *stroke, done func() (bool, error)) error {
	frame := time.NewTicker(100 * time.Millisecond)
	defer frame.Stop()
	for {
		struck, err := done()
		if err != nil {
			return err
		}
		if err = s.look(d); err == nil && !struck {
			err = errors.New("the fault is not over")
		}
		now, until := time.Now(), time.Now()
		if !s.back.IsZero() {
			until = s.back.Add(100 * time.Millisecond)
		}
		over := err == nil && now.After(s.zero.Add(shown)) && now.After(s.back.Add(shown/2))
		expired := now.Sub(s.zero) > patience
		d.screen.picture(d.picture(newWindow(s.zero, now, until)), over || expired)
		switch {
		case over:
			return nil
		case expired:
			return fmt.Errorf("after %s: %w", patience, err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-frame.C:
		}
	}
}

// report says in words what the picture shows.
func (d *demo) report(f fault, s *stroke) {
	old, heir := lab.NodeName(s.holder), lab.NodeName(s.heir.Node)
	lastWord := "was silent"
	for _, u := range d.arp.Utterances(d.vip) {
		if u.Node == s.holder && u.At.After(s.zero) && u.At.Before(s.heir.First) {
			lastWord = fmt.Sprintf("answered ARP until %+d ms", u.At.Sub(s.zero).Milliseconds())
		}
	}
	d.screen.printf("  %s took over. %s %s, %s since %+d ms.\n", d.screen.paint(bold, heir), old, lastWord, heir, s.heir.First.Sub(s.zero).Milliseconds())
	var gaps, stalls []string
	for _, c := range d.clients {
		gap := fmt.Sprintf("%d ms", gapAfter(c.since(s.zero.Add(-time.Second)), s.zero).Milliseconds())
		switch c.kind {
		case echoKind:
			gaps = append(gaps, gap)
		case streamKind:
			stalls = append(stalls, gap)
		}
	}
	o := outcome{f.name, old + " > " + heir, strings.Join(gaps, ", "), "kept, stalled " + strings.Join(stalls, ", ")}
	for _, st := range d.streams {
		if err := st.Broken(); err != nil {
			o.stalls = d.screen.paint(red, fmt.Sprintf("BROKEN: %v", err))
		}
	}
	d.strokes = append(d.strokes, o)
	d.screen.printf("  Longest gap between echo replies: %s. Open connections: %s.\n", d.screen.paint(bold, o.gaps), o.stalls)
}

// mend undoes the fault and sees that nobody notices.
func (d *demo) mend(ctx context.Context, f fault, j int) error {
	begin := time.Now()
	holder, err := d.holder(ctx)
	if err == nil {
		err = f.mend(j)
	}
	if err == nil {
		err = d.awaitReady(ctx, j)
	}
	ready := time.Since(begin)
	if err == nil {
		err = d.seenAsVIP(ctx, selected(j))
	}
	if err != nil {
		return fmt.Errorf("mend the %s of %s: %w", f.name, lab.NodeName(j), err)
	}
	lostEchoes := 0
	for _, c := range d.clients {
		if c.kind == echoKind {
			lostEchoes += c.since(begin).Between(begin, time.Now().Add(-lateAfter)).Lost()
		}
	}
	now, err := d.holder(ctx)
	if err != nil {
		return err
	}
	stays := lab.NodeName(now) + " keeps the VIP"
	if now != holder {
		stays = lab.NodeName(now) + " holds the VIP now"
	}
	d.screen.printf("  %s: %s; ready to stand by after %d ms. %s; echoes lost meanwhile: %d.\n",
		lab.NodeName(j), f.mended, ready.Milliseconds(), stays, lostEchoes)
	return nil
}

func rest(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
