package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sallyport/sallyport/e2e/lab"
	"github.com/sallyport/sallyport/flows/conntrack"
)

const (
	idleFlows = 50000
	talkers   = 2000
	talkEvery = 500 * time.Millisecond
	talkPort  = 9011 // a server of this program at the partner's
	newComers = 2000 // connections a second
)

// bereft is what crashes among many connections were like.
type bereft struct {
	echo, asking, pushed trials
	trials               int
	askedLost, pushLost  int // a stream of each in a trial
	idle, idleLost       int
	talking, silenced    int
	begun, failed        int
	slowest              trials
}

// crash ends the holder's node among many connections, in a lab for each trial.
func (b *bench) crash(ctx context.Context) (string, error) {
	var r bereft
	for n := range b.trials {
		if err := b.crashAmong(ctx, &r); err != nil {
			return "", fmt.Errorf("trial %d: %w", n+1, err)
		}
		progress("crash %d/%d: echo %.0f ms, asking %.0f ms, pushed %.0f ms; lost: asking %d, pushed %d, idle %d of %d, talking %d of %d, new ones %d of %d", n+1, b.trials,
			1e3*last(r.echo), 1e3*last(r.asking), 1e3*last(r.pushed), r.askedLost, r.pushLost, r.idleLost, r.idle, r.silenced, r.talking, r.failed, r.begun)
	}
	return crashText(r), nil
}

func (b *bench) crashAmong(ctx context.Context, r *bereft) (err error) {
	w, err := b.up("c", lab.Options{Nodes: 4, GatewayNodes: []int{1, 2, 3}})
	if err != nil {
		return err
	}
	side := &ours{}
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w\n%s", err, w.LogTails(15))
		}
		err = errors.Join(err, forgetAll(w), w.Close())
	}()
	if err := side.raise(w); err != nil {
		return err
	}
	talk, err := startTalk(w, pod(4))
	if err != nil {
		return err
	}
	defer talk.stop()
	holder, err := w.holder()
	if err != nil {
		return err
	}
	before, err := w.status(lab.Gateway, holder)
	if err != nil {
		return err
	}
	c, err := newCrowd(w, holder)
	if err != nil {
		return err
	}
	if err := c.gather(ctx, idleFlows); err != nil {
		return err
	}
	if err := side.whole(); err != nil {
		return err
	}
	news, err := w.StartConnects(pod(4), lab.PartnerAddr, time.Second/newComers)
	if err != nil {
		return err
	}
	s, err := startClients(w, pod(4))
	if err != nil {
		return err
	}
	if err := w.replicated(w.Others(holder)[:2], s.asking, s.pushed); err != nil {
		return err
	}
	if err := wait(ctx, 2*time.Second+rand.N(200*time.Millisecond)); err != nil {
		return err
	}
	if n := talk.silenced(ctx, time.Now()); n > 0 {
		return fmt.Errorf("%d connections are silent before anything has happened", n)
	}
	now, err := w.status(lab.Gateway, holder)
	if err != nil {
		return err
	}
	if !now.VIPs[0].Held || now.VIPs[0].Term != before.VIPs[0].Term {
		return fmt.Errorf("there was an election before anything had happened: %v", now.VIPs[0].Transitions)
	}
	at, err := w.PowerCut(holder)
	if err != nil {
		return err
	}
	heir, err := w.holder()
	if err != nil {
		return err
	}
	after := time.Now()
	if _, err := s.served(ctx, after); err != nil {
		return err
	}
	for stream, lost := range map[*probed]*int{s.asking: &r.askedLost, s.pushed: &r.pushLost} {
		if _, ok := stream.Since(after).NextReply(after); !ok || stream.Broken() != nil {
			*lost++
		}
	}
	r.trials++
	r.talking, r.silenced = r.talking+talkers, r.silenced+talk.silenced(ctx, time.Now())
	idle, err := c.idle(heir)
	if err != nil {
		return err
	}
	r.idle, r.idleLost = r.idle+idleFlows, r.idleLost+idleFlows-idle
	over := time.Now()
	begun := news.Stop()
	echo, _, asking, pushed := s.stop()
	r.begun, r.failed = r.begun+len(begun.Exchanges), r.failed+begun.Lost()
	r.slowest.add(begun.Latency(1))
	r.echo.add(longest(echo, at, over))
	r.asking.add(longest(asking, at, over))
	r.pushed.add(longest(pushed, at, over))
	return nil
}

// forgetAll empties the kernels: left to the end of their namespaces, which the kernel tidies up
// in the background, the connections of one trial would be in the way of the next.
func forgetAll(w *world) error {
	var errs []error
	for j := 1; j <= w.Options.Nodes; j++ {
		if out, err := w.Exec(lab.NodeName(j), "conntrack", "-F"); err != nil {
			errs = append(errs, fmt.Errorf("forget the connections of n%d: %w: %s", j, err, out))
		}
	}
	return errors.Join(errs...)
}

// idle counts those that a node's kernel has, established.
func (c *crowd) idle(j int) (n int, err error) {
	first, end := crowdFlow(0).Src, crowdFlow(idleFlows).Src
	err = c.inside(j, func() error {
		_, err := conntrack.Dump(conntrack.IPv4, conntrack.Mark{}, func(e *conntrack.Entry) bool {
			if src := e.Original.Src; c.scope.Has(e) && !src.Less(first) && src.Less(end) && e.TCPState == conntrack.TCPEstablished {
				n++
			}
			return false
		})
		return err
	})
	return n, err
}

// talk are connections of a pod that are never silent for long: in the one half the pod
// asks, in the other the partner speaks.
type talk struct {
	listener net.Listener
	conns    []net.Conn
	heard    []atomic.Int64 // when, in nanoseconds of the Unix time
	running  sync.WaitGroup
	mu       sync.Mutex
	theirs   []net.Conn
}

func startTalk(w *world, from string) (*talk, error) {
	t := &talk{heard: make([]atomic.Int64, talkers)}
	ns, err := w.Namespace(lab.PartnerHost)
	if err != nil {
		return nil, err
	}
	if err := ns.Do(func() (err error) {
		t.listener, err = net.Listen("tcp4", fmt.Sprintf(":%d", talkPort))
		return err
	}); err != nil {
		return nil, fmt.Errorf("listen at the partner's: %w", err)
	}
	t.running.Go(t.serve)
	for i := range talkers {
		c, err := w.Dial(from, partnerPort(talkPort), patience)
		if err != nil {
			t.stop()
			return nil, err
		}
		t.conns = append(t.conns, c)
		t.running.Go(func() { t.converse(i, c) })
	}
	return t, nil
}

func (t *talk) serve() {
	for {
		c, err := t.listener.Accept()
		if err != nil {
			return
		}
		t.mu.Lock()
		t.theirs = append(t.theirs, c)
		t.mu.Unlock()
		t.running.Go(func() {
			var kind [1]byte
			if _, err := io.ReadFull(c, kind[:]); err != nil {
				return
			}
			_, err := c.Write(kind[:])
			if kind[0] == 'a' {
				_, _ = io.Copy(c, c)
				return
			}
			for ; err == nil; _, err = c.Write(kind[:]) {
				time.Sleep(talkEvery)
			}
		})
	}
}

// converse is one of them, from the pod's side.
func (t *talk) converse(i int, c net.Conn) {
	said := []byte{"ap"[i%2]}
	if _, err := c.Write(said); err != nil {
		return
	}
	for buf := make([]byte, 1); ; {
		if _, err := io.ReadFull(c, buf); err != nil {
			return
		}
		t.heard[i].Store(time.Now().UnixNano())
		if said[0] == 'a' { // it asks again
			time.Sleep(talkEvery)
			if _, err := c.Write(said); err != nil {
				return
			}
		}
	}
}

// silenced waits until each has heard something since, and counts those that have not.
func (t *talk) silenced(ctx context.Context, since time.Time) (n int) {
	_ = lab.AwaitContext(ctx, silent, func() error {
		n = 0
		for i := range t.heard {
			if t.heard[i].Load() < since.UnixNano() {
				n++
			}
		}
		if n > 0 {
			return fmt.Errorf("%d connections are silent", n)
		}
		return nil
	})
	return n
}

func (t *talk) stop() {
	_ = t.listener.Close()
	for _, c := range t.conns {
		_ = c.Close()
	}
	t.mu.Lock()
	for _, c := range t.theirs {
		_ = c.Close()
	}
	t.mu.Unlock()
	t.running.Wait()
}

func crashText(r bereft) string {
	lost := r.askedLost + r.pushLost + r.idleLost + r.silenced
	return fmt.Sprintf(`## A crash among many connections

The holder's node loses its power, in a fresh lab for each trial of four nodes, three of them gateways, default timing, while the holder has %d idle connections, put into
its kernel as in "Replicated connections"; %d of a pod on the fourth node in which somebody speaks every %v, in half of them the partner only; and the pod begins %d
a second. Beside them the clients of "Beside keepalived and conntrackd", of which the stalls are: the longest time without an answer. An idle connection is lost that the heir's kernel does not have as established; one
in which somebody speaks, when nothing was heard in %v after the heir had the VIP. Of the connections begun, those fail whose
partner greeted in the last milliseconds before the crash, before a standby knew of them, and whose pod has nothing to say itself.

`+instrument+`

%s
%s`, idleFlows, talkers, talkEvery, newComers, silent, table([][]string{
		{"", "lost", "stall, ms, median / p95 / longest"},
		{"request and response, every 5 ms", fmt.Sprintf("%d of %d", r.askedLost, r.trials), r.asking.spread()},
		{"server push, every 5 ms", fmt.Sprintf("%d of %d", r.pushLost, r.trials), r.pushed.spread()},
		{"idle", fmt.Sprintf("%d of %d", r.idleLost, r.idle), ""},
		{fmt.Sprintf("spoken in every %v", talkEvery), fmt.Sprintf("%d of %d", r.silenced, r.talking), ""},
		{"UDP echo, every 5 ms", "", r.echo.spread()},
		{"begun, until the partner's greeting", fmt.Sprintf("%d of %d", r.failed, r.begun), r.slowest.spread() + " (the slowest of each trial)"},
	}), verdict("connections lost that were established", float64(lost), 0, lost == 0, "%.0f"))
}
