package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/sallyport/sallyport/e2e/lab"
)

// peer is a contender of the section peers.
type peer struct {
	name, title string
	side        func() side
	args        []string // of the gateways
}

var peers = []peer{
	{name: "default", title: "sallyport", side: func() side { return &ours{} }},
	{name: "fast", title: "sallyport, `--timing fast`", side: func() side { return &ours{} }, args: []string{"--timing", "fast"}},
	{name: "keepalived-1s", title: "keepalived 1 s, conntrackd", side: func() side { return &vrrp{advert: "1", replicate: true} }},
	{name: "keepalived-50ms", title: "keepalived 50 ms, conntrackd", side: func() side { return &vrrp{advert: "0.05", replicate: true} }},
	{name: "keepalived-10ms", title: "keepalived 10 ms, real time, conntrackd", side: func() side { return &vrrp{advert: "0.01", realTime: true, replicate: true} }},
}

// blow is something that happens to the holder.
type blow struct {
	name, title string
	// strike gives the moment of the fault.
	strike func(*world, side, int) (time.Time, error)
	// mend undoes it; nil: nothing does, and the lab has had its day.
	mend func(*world, side, int) error
}

func acting(act func(side, int) error) func(*world, side, int) (time.Time, error) {
	return func(_ *world, s side, holder int) (time.Time, error) {
		at := time.Now()
		return at, act(s, holder)
	}
}

func mending(act func(side, int) error) func(*world, side, int) error {
	return func(_ *world, s side, holder int) error { return act(s, holder) }
}

// blows are struck in this order in one lab.
var blows = []blow{
	{name: "stop", title: "graceful stop (`SIGTERM`)", strike: acting(side.stop), mend: mending(side.start)},
	{name: "pause", title: "`SIGSTOP`", strike: acting(side.pause), mend: mending(side.resume)},
	{name: "kill", title: "`kill -9`", strike: acting(side.kill), mend: mending(side.start)},
	{
		name: "silence", title: "silent death, carrier kept",
		strike: func(w *world, _ side, holder int) (time.Time, error) {
			at := time.Now()
			return at, w.CutOutsideSilently(holder)
		},
		mend: func(w *world, _ side, _ int) error { return w.Heal() },
	},
	{
		name: "crash", title: "crash of the node",
		strike: func(w *world, s side, holder int) (time.Time, error) {
			at, err := w.PowerCut(holder)
			return at, errors.Join(err, s.lose(holder))
		},
	},
}

// suffered is what one fault did to one contender, trial by trial.
type suffered struct {
	echo, connect, asking, pushed trials // the longest without an answer
	lost, streams                 int    // connections
	both                          int    // trials in which two hosts were proven to answer for the VIP
}

type cell struct{ peer, blow string }

// peers strikes every contender in turn, trial by trial.
func (b *bench) peers(ctx context.Context) (string, error) {
	if err := b.among("peers", peerNames(), blowNames()); err != nil {
		return "", err
	}
	results := map[cell]*suffered{}
	for n := range b.trials {
		for i := range peers {
			p := peers[(i+n)%len(peers)] // nobody always comes first
			if !b.wantsOf(p.name, peerNames()) || !p.here() {
				continue
			}
			if err := b.strikeAll(ctx, n, p, results); err != nil {
				return "", fmt.Errorf("trial %d of %s: %w", n+1, p.name, err)
			}
		}
	}
	return peersText(results), nil
}

// here says whether the contender can be had on this machine.
func (p peer) here() bool {
	v, theirs := p.side().(*vrrp)
	return !theirs || haveKeepalived() && (!v.replicate || have("conntrackd"))
}

// strikeAll is one trial of a contender: every fault in a lab of its own.
func (b *bench) strikeAll(ctx context.Context, n int, p peer, results map[cell]*suffered) (err error) {
	// The clients' node is no gateway: what is measured is never the heir's own pod.
	w, err := b.up("p", lab.Options{Nodes: 4, GatewayNodes: []int{1, 2, 3}, GatewayArgs: p.args})
	if err != nil {
		return err
	}
	s := p.side()
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w\n%s", err, w.LogTails(15))
		}
		err = errors.Join(err, s.down(), w.Close())
	}()
	if err := s.raise(w); err != nil {
		return err
	}
	for _, f := range blows {
		if !b.wantsOf(f.name, blowNames()) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		r := results[cell{p.name, f.name}]
		if r == nil {
			r = &suffered{}
			results[cell{p.name, f.name}] = r
		}
		began := time.Now()
		if err := r.strike(ctx, w, s, f); err != nil {
			return fmt.Errorf("%s: %w", f.title, err)
		}
		progress("peers %d/%d %-15s %-7s echo %4.0f ms, connections %4.0f ms, asking %4.0f ms, pushed %4.0f ms; lost %d of %d, two owners in %d; %.1f s", n+1, b.trials, p.name, f.name,
			1e3*last(r.echo), 1e3*last(r.connect), 1e3*last(r.asking), 1e3*last(r.pushed), r.lost, r.streams, r.both, time.Since(began).Seconds())
	}
	return nil
}

func last(t trials) float64 {
	if len(t) == 0 {
		return 0
	}
	return t[len(t)-1]
}

// clients are what a pod does meanwhile.
type clients struct {
	echo, connects, asking, pushed *probed
}

func startClients(w *world, from string) (c clients, err error) {
	if c.asking, err = w.ask(from); err != nil {
		return c, err
	}
	if c.pushed, err = w.listen(from); err != nil {
		return c, err
	}
	if c.echo, err = w.echo(from); err != nil {
		return c, err
	}
	c.connects, err = w.connect(from, pace)
	return c, err
}

// served waits until each client has an answer to what was asked after the moment. A
// stream that broke, or is silent for longer than TCP's own timer would have it, is lost.
func (c clients) served(ctx context.Context, after time.Time) (lost int, err error) {
	for _, report := range []func(time.Time) lab.Timeline{c.echo.Since, c.connects.Since} {
		if err := lab.AwaitContext(ctx, patience, func() error {
			if _, ok := report(after).NextReply(after); !ok {
				return errors.New("no answer after the fault")
			}
			return nil
		}); err != nil {
			return 0, err
		}
	}
	for _, s := range []*probed{c.asking, c.pushed} {
		if lab.AwaitContext(ctx, silent, func() error {
			if _, ok := s.Since(after).NextReply(after); !ok && s.Broken() == nil {
				return errors.New("no answer after the fault")
			}
			return nil
		}) != nil || s.Broken() != nil {
			lost++
		}
	}
	return lost, ctx.Err()
}

// silent is longer than TCP waits for a retransmission after the longest gap, some 3 s.
const silent = 10 * time.Second

// stop ends the clients, all at once since each waits for answers on their way.
func (c clients) stop() (echo, connects, asking, pushed lab.Timeline) {
	var all sync.WaitGroup
	all.Go(func() { echo = c.echo.Stop() })
	all.Go(func() { connects = c.connects.Stop() })
	all.Go(func() { asking = c.asking.Stop() })
	all.Go(func() { pushed = c.pushed.Stop() })
	all.Wait()
	return echo, connects, asking, pushed
}

// strike is one fault and its end.
func (r *suffered) strike(ctx context.Context, w *world, s side, f blow) error {
	holder, err := s.holder()
	if err != nil {
		return err
	}
	c, err := startClients(w, pod(4))
	if err != nil {
		return err
	}
	if err := w.replicated(others(w.Options.GatewayNodes, holder), c.asking, c.pushed); err != nil {
		return err
	}
	arp, err := w.WatchARP(5 * time.Millisecond)
	if err != nil {
		return err
	}
	defer arp.Stop()
	// A moment of the adverts' or heartbeats' period by chance.
	if err := wait(ctx, 300*time.Millisecond+rand.N(200*time.Millisecond)); err != nil {
		return err
	}
	at, err := f.strike(w, s, holder)
	if err != nil {
		return err
	}
	if err := firstWord(arp, w, holder, at); err != nil {
		return err
	}
	lost, err := c.served(ctx, time.Now())
	if err != nil {
		return err
	}
	if err := wait(ctx, 300*time.Millisecond); err != nil { // a second gap would be seen
		return err
	}
	over := time.Now()
	echo, connects, asking, pushed := c.stop()
	r.lost, r.streams = r.lost+lost, r.streams+2
	r.echo.add(longest(echo, at, over))
	r.connect.add(longest(connects, at, over))
	if c.asking.Broken() == nil {
		r.asking.add(longest(asking, at, over))
	}
	if c.pushed.Broken() == nil {
		r.pushed.add(longest(pushed, at, over))
	}
	if f.mend != nil {
		err = errors.Join(f.mend(w, s, holder), s.whole())
	}
	if len(arp.Proven()) > 0 {
		r.both++
	}
	return err
}

// firstWord waits until another than the holder speaks for the VIP.
func firstWord(arp *lab.ARPWatch, w *world, holder int, after time.Time) error {
	return lab.Await(patience, func() error {
		if !slices.ContainsFunc(arp.Utterances(w.Options.VIPs[0]), func(u lab.Utterance) bool {
			return u.Node != holder && u.Node != 0 && u.At.After(after)
		}) {
			return fmt.Errorf("nobody but n%d speaks for the VIP", holder)
		}
		return nil
	})
}

func others(all []int, without int) []int {
	return slices.DeleteFunc(slices.Clone(all), func(j int) bool { return j == without })
}
