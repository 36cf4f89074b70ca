package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sallyport/sallyport/e2e/lab"
	"github.com/sallyport/sallyport/flows"
	"github.com/sallyport/sallyport/flows/conntrack"
	"github.com/sallyport/sallyport/gateway/host"
	"github.com/sallyport/sallyport/snat"
)

const (
	auditTime   = 6 * time.Second // of each measurement
	auditTarget = 5.0             // % of a processor more
)

// audited is what one way of running came to.
type audited struct {
	name   string
	args   []string
	cpu    trials // processors' share
	rate   trials
	lines  uint64
	missed uint64 // connections that are on no record
}

// audit measures a gateway that records connections beside the same one that does not, in
// turn, with connections put into its kernel as flows does.
func (b *bench) audit(ctx context.Context) (_ string, err error) {
	w, err := b.up("a", lab.Options{GatewayNodes: []int{1}, GatewayArgs: []string{"--timing", "wan"}})
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w\n%s", err, w.LogTails(10))
		}
		err = errors.Join(err, w.Close())
	}()
	if err := w.Manifests.WriteRoute("payments", route+"audit: true\n"); err != nil {
		return "", err
	}
	log := w.StateDir(lab.Gateway, 1) + "/audit/connections.jsonl"
	ways := []*audited{
		{name: "no record", args: nil},
		{name: "ends", args: []string{"--audit-log", log}},
		{name: "starts and ends", args: []string{"--audit-log", log, "--audit-start"}},
	}
	if err := w.start(); err != nil {
		return "", err
	}
	c, err := newCrowd(w, 1)
	if err != nil {
		return "", err
	}
	for n := range b.trials {
		for i := range ways {
			way := ways[(n+i)%len(ways)] // none is always the first
			if !b.wants(way.name) {
				continue
			}
			if err := way.measure(ctx, c); err != nil {
				return "", fmt.Errorf("%s: %w", way.name, err)
			}
			last := len(way.cpu) - 1
			progress("audit %d/%d: %s: %.0f new connections a second, %.1f %% of a processor", n+1, b.trials, way.name, way.rate[last], 100*way.cpu[last])
		}
	}
	return auditText(ways), nil
}

// measure starts the gateway anew and makes connections, each of which ends a while later.
func (a *audited) measure(ctx context.Context, c *crowd) error {
	p, err := c.w.Program(lab.Gateway, c.holder)
	if err != nil {
		return err
	}
	if err := p.Stop(); err != nil {
		return err
	}
	if _, err := c.w.StartGateway(c.holder, a.args...); err != nil {
		return err
	}
	if err := c.w.flows(); err != nil {
		return err
	}
	if err := wait(ctx, settling); err != nil {
		return err
	}
	before, err := c.processor(c.holder)
	if err != nil {
		return err
	}
	began := time.Now()
	made, err := c.pass(ctx, auditTime)
	if err != nil {
		return err
	}
	took := time.Since(began).Seconds()
	if err := wait(ctx, 2*flowLives); err != nil { // what is written later costs, too
		return err
	}
	after, err := c.processor(c.holder)
	if err != nil {
		return err
	}
	a.cpu, a.rate = append(a.cpu, (after-before)/took), append(a.rate, float64(made)/took)
	s, err := c.w.status(lab.Gateway, c.holder)
	if err != nil || a.args == nil {
		return err
	}
	return a.check(s, made)
}

// check demands that what was made is on record: a record that leaves out is cheap.
func (a *audited) check(s host.Status, made int) error {
	if s.Audit == nil || s.Audit.Unwritten > 0 || s.Audit.Gaps > 0 && s.Audit.Missing == 0 || s.Audit.Lines+s.Audit.Missing < uint64(made) {
		return fmt.Errorf("%d connections were made, on record is %+v", made, s.Audit)
	}
	a.lines, a.missed = a.lines+s.Audit.Lines, a.missed+s.Audit.Missing
	return nil
}

// pass makes connections of the audited route at the pace of flowRate, and ends them all.
func (c *crowd) pass(ctx context.Context, during time.Duration) (made int, err error) {
	const each, later = flowRate * int(flowTick) / int(time.Second), int(flowLives / flowTick)
	ticker := time.NewTicker(flowTick)
	defer ticker.Stop()
	mark, err := c.routeMark()
	if err != nil {
		return 0, err
	}
	rounds, began := 0, time.Now()
	for time.Since(began) < during {
		for due := int(time.Since(began) / flowTick); rounds < due; rounds++ {
			changes := onRoute(mark, puts(flows.Put, rounds*each, each))
			if rounds >= later {
				changes = append(changes, onRoute(mark, puts(flows.Delete, (rounds-later)*each, each))...)
			}
			if err := c.change(c.holder, changes); err != nil {
				return 0, err
			}
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-ticker.C:
		}
	}
	first := max(0, rounds-later)
	return rounds * each, c.change(c.holder, onRoute(mark, puts(flows.Delete, first*each, (rounds-first)*each)))
}

func onRoute(mark uint32, changes []flows.Change) []flows.Change {
	for i := range changes {
		changes[i].Flow.Mark = mark
	}
	return changes
}

// routeMark is what the gateway's rules have marked the pods' own connections with.
func (c *crowd) routeMark() (mark uint32, err error) {
	err = c.inside(c.holder, func() error {
		_, err := conntrack.Dump(conntrack.IPv4, conntrack.Mark{}, func(e *conntrack.Entry) bool {
			if e.Zone == c.scope.Zone && e.Reply.Dst == c.scope.VIP {
				mark = e.Mark & snat.RouteMask
			}
			return false
		})
		return err
	})
	if err == nil && mark == 0 {
		err = errors.New("no connection of a pod is in the holder's kernel")
	}
	return mark, err
}

func auditText(ways []*audited) string {
	rows := [][]string{{"on record", "new connections a second", "processor, %, median / most", "more than without, median"}}
	var text string
	for _, a := range ways {
		more := "-"
		if m := a.more(ways[0]); a != ways[0] && len(m) > 0 {
			more = fmt.Sprintf("%+.1f", m.median())
			text += verdict(fmt.Sprintf("%s, %% of a processor more", a.name), m.median(), auditTarget, m.median() <= auditTarget, "%.1f")
		}
		rows = append(rows, []string{a.name, fmt.Sprintf("%.0f", a.rate.median()), fmt.Sprintf("%.1f / %.1f", 100*a.cpu.median(), 100*a.cpu.quantile(1)), more})
	}
	var lines, missed uint64
	for _, a := range ways {
		lines, missed = lines+a.lines, missed+a.missed
	}
	return fmt.Sprintf(`## The record of connections

One gateway, started anew for each measurement, the ways in turn. Connections of a route with %s are put into its kernel, established, %d a second asked for,
and each is removed %v later; the processor time is the whole program's, replication's reading of the events included, until the last record is written.
%d lines were written, %d connections counted as missing.

%s
%s`, "`audit: true`", flowRate, flowLives, lines, missed, table(rows), text)
}

// more is how much more of a processor it took, in %, round by round.
func (a *audited) more(base *audited) (more trials) {
	for i := range min(len(a.cpu), len(base.cpu)) {
		more = append(more, 100*(a.cpu[i]-base.cpu[i]))
	}
	return more
}
