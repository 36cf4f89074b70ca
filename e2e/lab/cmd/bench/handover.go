package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/sallyport/sallyport/e2e/lab"
	"github.com/sallyport/sallyport/gateway/host"
)

// handed is what moving a VIP did to the traffic of a pod of every node.
type handed struct {
	title                  string
	moves                  int
	asked, lost            int // datagrams
	streams, broken        int // connections that lived through all
	begun, failed          int // connections begun meanwhile
	waited                 trials
	echo, stream, connects trials  // the longest gap, and the slowest new connection, of each move and pod
	still                  *handed // the same of times in which nothing moves
}

// traffic is what goes on over all moves.
type traffic struct {
	echo, asking, listens, connects []*probed
}

func (w *world) traffic() (*traffic, error) {
	t := &traffic{}
	for j := 1; j <= w.Options.Nodes; j++ {
		e, err1 := w.echo(pod(j))
		a, err2 := w.ask(pod(j))
		l, err3 := w.listen(pod(j))
		c, err4 := w.connect(pod(j), 20*time.Millisecond)
		if err := errors.Join(err1, err2, err3, err4); err != nil {
			return nil, err
		}
		t.echo, t.asking, t.listens, t.connects = append(t.echo, e), append(t.asking, a), append(t.listens, l), append(t.connects, c)
	}
	return t, nil
}

// since adds what a move that began then was like.
func (t *traffic) since(at, over time.Time, h *handed) {
	for i := range t.echo {
		h.echo.add(t.echo[i].Since(at.Add(-time.Second)).Stall(at, over).Length())
		h.stream.add(t.asking[i].Since(at.Add(-time.Second)).Stall(at, over).Length())
		h.stream.add(t.listens[i].Since(at.Add(-time.Second)).Stall(at, over).Length())
		h.connects.add(t.connects[i].Since(at).Between(at, over).Latency(1))
	}
}

func (t *traffic) stop(h *handed) {
	for i := range t.echo {
		report := t.echo[i].Stop()
		h.asked, h.lost = h.asked+len(report.Exchanges), h.lost+report.Lost()
		for _, s := range []*probed{t.asking[i], t.listens[i]} {
			broken := s.Broken() // before it is stopped by us
			s.Stop()
			h.streams++
			if broken != nil {
				h.broken++
			}
		}
		opened := t.connects[i].Stop()
		h.begun, h.failed = h.begun+len(opened.Exchanges), h.failed+opened.Lost()
	}
}

// inStep waits until the holder's standbys have all connections.
func (w *world) inStep(holder int) error {
	return lab.Await(patience, func() error {
		s, err := w.status(lab.Gateway, holder)
		if err != nil {
			return err
		}
		if len(s.VIPs) == 0 || !s.VIPs[0].Held || s.VIPs[0].Replication == nil || len(s.VIPs[0].Replication.Standbys) != len(w.Options.GatewayNodes)-1 {
			return fmt.Errorf("n%d does not have all standbys", holder)
		}
		for _, standby := range s.VIPs[0].Replication.Standbys {
			if !standby.InStep || standby.LagSeconds > .05 {
				return fmt.Errorf("%s is not in step", standby.Name)
			}
		}
		return nil
	})
}

const (
	// settledFor is how long the segment is watched after each move.
	settledFor = 400 * time.Millisecond
	// tidied is when nothing of a move goes on any more: a second after it the new holder
	// gives its connections ordinary timeouts, which reads the table.
	tidied = 2 * time.Second
)

func (b *bench) handover(ctx context.Context) (string, error) {
	moved := &handed{title: "`sallyport handover`", still: &handed{}}
	restarted := &handed{title: "rolling restart of all gateways (`SIGTERM`, start)", still: &handed{}}
	for _, c := range []struct {
		name string
		h    *handed
		move func(*bench, context.Context, *world, *traffic, *handed) error
	}{
		{"command", moved, (*bench).handOvers},
		{"restart", restarted, (*bench).restarts},
	} {
		if !b.wants(c.name) {
			continue
		}
		if err := b.movedUnderLoad(ctx, c.h, c.move); err != nil {
			return "", fmt.Errorf("%s: %w", c.h.title, err)
		}
		progress("handover %s: %d moves, %d of %d datagrams lost, %d of %d connections lost, echo's longest gap %s, with nothing moved %s", c.name,
			c.h.moves, c.h.lost, c.h.asked, c.h.broken, c.h.streams, c.h.echo.spread(), c.h.still.echo.spread())
	}
	return handoverText(moved, restarted), nil
}

func (b *bench) movedUnderLoad(ctx context.Context, h *handed, move func(*bench, context.Context, *world, *traffic, *handed) error) (err error) {
	// With wan nobody takes the VIP meanwhile because this machine is busy.
	w, err := b.up("h", lab.Options{GatewayArgs: []string{"--timing", "wan", "--handover-timeout", "30s"}})
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w\n%s", err, w.LogTails(15))
		}
		err = errors.Join(err, w.Close())
	}()
	if err := w.start(); err != nil {
		return err
	}
	t, err := w.traffic()
	if err != nil {
		return err
	}
	if err := wait(ctx, time.Second); err != nil {
		return err
	}
	if err := move(b, ctx, w, t, h); err != nil {
		return err
	}
	t.stop(h)
	return nil
}

func (b *bench) handOvers(ctx context.Context, w *world, t *traffic, h *handed) error {
	for range b.handovers {
		holder, err := w.holder()
		if err != nil {
			return err
		}
		if err := still(ctx, settledFor, t, h); err != nil {
			return err
		}
		at := time.Now()
		done, err := w.handOver(ctx, holder)
		if err != nil {
			return fmt.Errorf("hand over from n%d: %w", holder, err)
		}
		h.moves++
		h.waited.add(time.Duration(done.Milliseconds * float64(time.Millisecond)))
		if err := wait(ctx, settledFor); err != nil {
			return err
		}
		t.since(at, time.Now(), h)
		if err := wait(ctx, tidied); err != nil {
			return err
		}
	}
	return nil
}

// handOver asks as the command does, without a program that starts on the clients' processors.
func (w *world) handOver(ctx context.Context, holder int) (done host.Handover, err error) {
	to := url.URL{Scheme: "http", Host: lab.GatewayHTTP, Path: "/handover", RawQuery: url.Values{"vip": {w.Options.VIPs[0].String()}}.Encode()}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to.String(), nil)
	if err != nil {
		return done, err
	}
	req.Header.Set(host.HandoverHeader, "1")
	code, body, err := w.Ask(lab.NodeName(holder), req)
	if err == nil && code != http.StatusOK {
		err = fmt.Errorf("%d %s", code, body)
	}
	if err != nil {
		return done, err
	}
	return done, json.Unmarshal(body, &done)
}

// still watches as long as a move is watched while none is made: what the machine and the
// clients themselves make of their pace.
func still(ctx context.Context, d time.Duration, t *traffic, h *handed) error {
	at := time.Now()
	if err := wait(ctx, d); err != nil {
		return err
	}
	t.since(at, time.Now(), h.still)
	return nil
}

func (b *bench) restarts(ctx context.Context, w *world, t *traffic, h *handed) error {
	for range max(1, b.handovers/10) {
		for _, j := range w.Options.GatewayNodes {
			holder, err := w.holder()
			if err != nil {
				return err
			}
			if err := w.inStep(holder); err != nil {
				return err
			}
			p, err := w.Program(lab.Gateway, j)
			if err != nil {
				return err
			}
			at := time.Now()
			if err := p.Stop(); err != nil {
				return err
			}
			if _, err := w.StartGateway(j); err != nil {
				return err
			}
			if err := lab.Await(patience, w.ready(lab.Gateway, j)); err != nil {
				return err
			}
			if err := wait(ctx, settledFor); err != nil {
				return err
			}
			h.moves++
			took := time.Since(at)
			t.since(at, at.Add(took), h)
			if err := wait(ctx, tidied); err != nil {
				return err
			}
			if err := still(ctx, took, t, h); err != nil {
				return err
			}
		}
	}
	return nil
}

// spread is median, p95 and the longest of all.
func (t trials) spread() string {
	if len(t) == 0 {
		return "none"
	}
	return fmt.Sprintf("%.0f / %.0f / %.0f", t.median()*1e3, t.quantile(.95)*1e3, t.quantile(1)*1e3)
}

func handoverText(all ...*handed) string {
	rows := [][]string{{"", "moves", "datagrams lost", "connections lost", "new ones failed", "packets waited, ms", "echo's longest gap, ms", "stream's stall, ms", "slowest new connection, ms"}}
	var verdicts string
	for _, h := range all {
		if h.moves == 0 {
			continue
		}
		rows = append(rows, []string{h.title, fmt.Sprint(h.moves), fmt.Sprintf("%d of %d", h.lost, h.asked), fmt.Sprintf("%d of %d", h.broken, h.streams),
			fmt.Sprintf("%d of %d", h.failed, h.begun), h.waited.spread(), h.echo.spread(), h.stream.spread(), h.connects.spread()})
		rows = append(rows, []string{"the same clients, nothing moved", "", "", "", "", "", h.still.echo.spread(), h.still.stream.spread(), h.still.connects.spread()})
		verdicts += verdict("datagrams lost, "+h.title, float64(h.lost), 0, h.lost == 0, "%.0f")
		verdicts += verdict("connections lost, "+h.title, float64(h.broken), 0, h.broken == 0, "%.0f")
		stall := 1e3 * max(h.echo.quantile(1), h.stream.quantile(1))
		verdicts += verdict("longest stall, "+h.title+", ms", stall, 20, stall <= 20, "%.0f")
	}
	return `## Planned hand-over

The VIP goes from gateway to gateway while a pod of every node asks by UDP every 5 ms, asks by TCP every 5 ms, is talked to by the
partner every 5 ms, and begins a connection every 20 ms. Gaps and stalls are the longest between two answers from the request (` + "`POST /handover`, as the command\nmakes it" + `) to 0.4 s after the answer, as every pod has them, its pace of 5 ms
included, with ` + "`--timing wan`" + `, on which a hand-over does not depend: median / p95 / the longest of all. Of a restart they include the start of the gateway. Between
two moves the same clients are watched for as long while nothing moves: what their pace and this machine, on which all hosts share two processors and one table of
connections, make of it by themselves.

` + instrument + `

` + table(rows) + "\n" + verdicts
}
