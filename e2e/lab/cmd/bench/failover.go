package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/sallyport/sallyport/e2e/lab"
)

// contender is a way to hold a VIP, and a fault that takes its holder away.
type contender struct {
	name, title string
	// raise lets traffic of every node's pod flow by the VIP, and says who holds it.
	raise func(*world) (holder int, down func() error, err error)
	args  []string      // of the gateways
	retry time.Duration // the agents' --syn-retry
	// strike gives the moment of the fault.
	strike func(*world, int) (time.Time, error)
}

func sallyport(w *world) (int, func() error, error) {
	if err := w.start(); err != nil {
		return 0, nil, err
	}
	holder, err := w.holder()
	return holder, func() error { return nil }, err
}

func powerCut(w *world, holder int) (time.Time, error) { return w.PowerCut(holder) }

func onGateway(act func(*lab.Program) error) func(*world, int) (time.Time, error) {
	return func(w *world, holder int) (time.Time, error) {
		p, err := w.Program(lab.Gateway, holder)
		if err != nil {
			return time.Time{}, err
		}
		at := time.Now()
		return at, act(p)
	}
}

var contenders = []contender{
	{name: "crash", title: "crash of the node", raise: sallyport, strike: powerCut},
	{name: "keepalived", title: "crash of the node, keepalived", raise: keepalived, strike: powerCut},
	{name: "fast", title: "crash of the node, `--timing fast`", raise: sallyport, args: []string{"--timing", "fast"}, strike: powerCut},
	{name: "syn", title: "crash of the node, `--syn-retry 100ms`", raise: sallyport, retry: 100 * time.Millisecond, strike: powerCut},
	{name: "kill", title: "`kill -9` of the gateway", raise: sallyport, strike: onGateway((*lab.Program).Kill)},
	{name: "pause", title: "`SIGSTOP` of the gateway", raise: sallyport, strike: onGateway((*lab.Program).Pause)},
	{name: "stop", title: "planned stop (`SIGTERM`)", raise: sallyport, strike: onGateway((*lab.Program).Stop)},
}

// aftermath is what a fault did to the traffic of a pod on another node, trial by
// trial.
type aftermath struct {
	echo, echoGap, connect, connectGap, stall trials
	begun                                     trials // of connections begun between the fault and the next reply, all trials together
	kept                                      int
}

func (b *bench) failover(ctx context.Context) (string, error) {
	results := map[string]*aftermath{}
	for n := range b.trials {
		for i := range contenders {
			c := contenders[(i+n)%len(contenders)] // nobody always comes first
			if !b.wants(c.name) || c.name == "keepalived" && !haveKeepalived() {
				continue
			}
			if err := ctx.Err(); err != nil {
				return "", err
			}
			if results[c.name] == nil {
				results[c.name] = &aftermath{}
			}
			r := results[c.name]
			if err := b.fail(ctx, c, r); err != nil {
				return "", fmt.Errorf("trial %d of %s: %w", n+1, c.title, err)
			}
			progress("failover %d/%d %-10s next reply %3.0f ms (median %.0f), connection %3.0f ms, stall %3.0f ms",
				n+1, b.trials, c.name, 1e3*r.echo[n], 1e3*r.echo.median(), 1e3*r.connect[n], 1e3*r.stall[n])
		}
	}
	return failoverText(results), nil
}

// fail is one trial, in a lab of its own, so that nothing is left of the one before
// and nothing else runs beside.
func (b *bench) fail(ctx context.Context, c contender, r *aftermath) (err error) {
	w, err := b.up("f", lab.Options{GatewayArgs: c.args, SYNRetry: c.retry})
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w\n%s", err, w.LogTails(15))
		}
		err = errors.Join(err, w.Close())
	}()
	holder, down, err := c.raise(w)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, down()) }()
	others := w.Others(holder)
	from := pod(others[rand.IntN(len(others))]) // the heir's own pod as often as another's
	echo, err := w.echo(from)
	if err != nil {
		return err
	}
	connects, err := w.connect(from, pace)
	if err != nil {
		return err
	}
	stream, err := w.ask(from)
	if err != nil {
		return err
	}
	// Some time to settle, and a moment of the heartbeats' period by chance.
	if err := wait(ctx, time.Second+rand.N(200*time.Millisecond)); err != nil {
		return err
	}
	at, err := c.strike(w, holder)
	if err != nil {
		return err
	}
	var next, opened time.Duration
	err = lab.Await(patience, func() error {
		var answered, admitted bool
		next, answered = echo.Since(at).NextReply(at)
		opened, admitted = connects.Since(at).NextReply(at)
		// The question that was under way at the fault is the one that stalls.
		answers := stream.Since(at.Add(-time.Second)).Answers()
		if !answered || !admitted || stream.Broken() == nil && (len(answers) == 0 || !answers[len(answers)-1].After(at.Add(next))) {
			return fmt.Errorf("no answer after the fault; the connection broke: %v", stream.Broken())
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := wait(ctx, 300*time.Millisecond); err != nil { // a second gap would be seen
		return err
	}
	r.echo.add(next)
	r.connect.add(opened)
	over := time.Now()
	if err := r.addBegun(connects, at, at.Add(next)); err != nil {
		return err
	}
	r.echoGap.add(longest(echo.Stop(), at, over))
	r.connectGap.add(longest(connects.Stop(), at, over))
	broken := stream.Broken()
	r.stall.add(stream.Stop().LongestGap().Length())
	if broken == nil {
		r.kept++
	}
	return nil
}

// addBegun waits for the connections that were begun while nothing answered.
func (r *aftermath) addBegun(connects *probed, from, to time.Time) error {
	var took []time.Duration
	err := lab.Await(patience, func() error {
		took = nil
		for _, e := range connects.Since(from).Exchanges {
			switch {
			case !e.Sent.Before(to):
			case e.Err != nil:
				return fmt.Errorf("a connection begun after the fault: %w", e.Err)
			case e.Answered.IsZero():
				return fmt.Errorf("a connection begun %v after the fault is not established", e.Sent.Sub(from))
			default:
				took = append(took, e.Answered.Sub(e.Sent))
			}
		}
		return nil
	})
	for _, d := range took {
		r.begun.add(d)
	}
	return err
}

// longest is the longest gap around the fault. What is answered after the end does not
// count, for nothing was asked meanwhile.
func longest(t lab.Timeline, fault, end time.Time) time.Duration {
	t = t.Between(fault.Add(-500*time.Millisecond), end)
	for i := range t.Exchanges {
		if t.Exchanges[i].Answered.After(end) {
			t.Exchanges[i].Answered = time.Time{}
		}
	}
	return t.LongestGap().Length()
}

func failoverText(results map[string]*aftermath) string {
	rows := [][]string{{"median / p95, ms", "next reply", "longest gap", "next connection", "longest without", "begun meanwhile", "stream's stall", "connections kept"}}
	for _, c := range contenders {
		if r := results[c.name]; r != nil {
			rows = append(rows, []string{c.title, r.echo.millis(), r.echoGap.millis(), r.connect.millis(), r.connectGap.millis(),
				r.begun.millis(), r.stall.millis(), fmt.Sprintf("%d of %d", r.kept, len(r.echo))})
		}
	}
	text := `## Failover

From the fault to the next reply, as a pod on another node lives through it: a UDP echo every 5 ms, a new TCP
connection every 5 ms, and one established TCP connection that asks every 5 ms. Each trial has a fresh lab of three
nodes, all of them gateways; the kinds are interleaved. A crash is the power cut of the holder's node: links
dark, no carrier loss elsewhere, processes killed. "Longest gap" is between any two
replies, "longest without" between any two new connections' greetings; "begun meanwhile" is from connect to greeting of
the connections that were begun between the fault and the next reply; the stream's stall includes
TCP's own retransmission timer, 200 ms at least. Where only the process is struck, the kernel forwards on until its fence closes:
there the longest gap says what was missed.

` + instrument + `

` + table(rows)
	if haveKeepalived() {
		text += "\n" + keepalivedNote + "\n"
	} else {
		text += "\nkeepalived was not installed: it is not compared.\n"
	}
	text += "\n"
	ours, theirs := results["crash"], results["keepalived"]
	if ours != nil {
		text += verdict("median of the next reply, ms", 1e3*ours.echo.median(), 130, ours.echo.median() <= .130, "%.0f")
		text += verdict("its p95, ms", 1e3*ours.echo.quantile(.95), 175, ours.echo.quantile(.95) <= .175, "%.0f")
	}
	if r := results["syn"]; r != nil {
		p95 := r.begun.quantile(.95)
		text += verdict("p95 of connections begun meanwhile, with `--syn-retry 100ms`, ms", 1e3*p95, 250, p95 <= .250, "%.0f")
	}
	if ours != nil && theirs != nil {
		text += verdict("median, against keepalived's", 1e3*ours.echo.median(), 1e3*theirs.echo.median(), ours.echo.median() < theirs.echo.median(), "%.0f")
	}
	return text
}
