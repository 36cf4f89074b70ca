package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/e2e/lab"
)

const (
	loops     = 4
	lookEvery = 5 * time.Second
)

// What may be measured by name: the timings as they are delivered, and each at the other
// one's priority, for who asks what that is good for.
var (
	asDelivered = []string{"default", "fast"}
	exchanged   = []string{"default-realtime", "fast-nice"}
)

// calm is what the gateways of one timing say of themselves over a time of load.
type calm struct {
	title       string
	world       *world
	before, now tally
	lease       time.Duration // the least that was left of it at a look
	roundTrip   trials
	moves       int // of the VIP to another gateway
}

// changes of holder seen by any replica, by reason.
func (c calm) changes() (sum uint64, why string) {
	var reasons []string
	for _, reason := range slices.Sorted(maps.Keys(c.now.transitions)) {
		if n := c.now.transitions[reason] - c.before.transitions[reason]; n > 0 {
			sum += n
			reasons = append(reasons, fmt.Sprintf("%s %d", reason, n))
		}
	}
	return sum, strings.Join(reasons, ", ")
}

func (b *bench) quiet(ctx context.Context) (_ string, err error) {
	var all []*calm
	defer func() {
		for _, c := range all {
			err = errors.Join(err, c.world.Close())
		}
	}()
	names := slices.Concat(asDelivered, exchanged)
	if err := b.among("quiet", names); err != nil {
		return "", err
	}
	for n, name := range names {
		if !slices.Contains(b.only, name) && (len(b.only) > 0 || n >= len(asDelivered)) {
			continue
		}
		timing, priority, given := strings.Cut(name, "-")
		args := []string{"--timing", timing}
		if given {
			args = append(args, "--priority", priority)
		}
		w, err := b.up(fmt.Sprintf("q%d", n), lab.Options{GatewayArgs: args})
		if err != nil {
			return "", err
		}
		all = append(all, &calm{title: name, world: w, lease: time.Hour})
		if err := w.start(); err != nil {
			return "", err
		}
	}
	took, seen, err := b.underLoad(ctx, all)
	if err != nil {
		return "", err
	}
	rows := [][]string{{"timing", "changes of holder", "elections", "moves", "least of the lease left", "heartbeat's round trip, median / p95, ms", "priority"}}
	var text string
	for _, c := range all {
		n, why := c.changes()
		changes := fmt.Sprint(n)
		if n > 0 {
			changes += " (" + why + ")"
		}
		rows = append(rows, []string{c.title, changes, fmt.Sprint(c.now.term - c.before.term), fmt.Sprint(c.moves),
			fmt.Sprintf("%.0f ms", 1e3*c.lease.Seconds()), c.roundTrip.inMillis("%.1f"), c.now.priority})
		text += verdict(c.title+", moves to another gateway", float64(c.moves), 0, c.moves == 0, "%.0f") +
			verdict(c.title+", changes of holder", float64(n), 0, n == 0, "%.0f")
	}
	autogroup := "without autogroups"
	if read("/proc/sys/kernel/sched_autogroup_enabled") == "1" {
		autogroup = "each in a scheduler autogroup of its own"
	}
	labs := "A lab"
	if len(all) > 1 {
		labs = fmt.Sprintf("%d labs at the same time, each", len(all))
	}
	return fmt.Sprintf(`## False failovers

%s with three gateways and three agents, on %d processors, beside %d busy loops at normal priority, %s, for %v.
"Changes of holder" is the sum over all replicas' transitions, of which none was wanted; "elections" is by how much the term
rose, "moves" how many of them were won by another gateway than the one before: a holder that was kept from a processor for too long, and
was missed by nobody, is elected again within a millisecond. What follows a "-" is the gateways' `+"`--priority`"+`. The lease and the round trip are those of /status, looked at every %v.

%s
A witness, a thread that does nothing but wake up every %v in the highest priority of real time, was late by more than %v %d times of %d, by %.0f ms at most. With that a lease
of fast ends before the next heartbeat, whatever program it is of.

%s`, labs, runtime.NumCPU(), loops, autogroup, took.Round(time.Second), lookEvery, table(rows),
		heartbeat, tooLate, seen.TooLate, seen.Wakes, 1e3*seen.Most.Seconds(), text), nil
}

// underLoad looks at them all beside the busy loops.
func (b *bench) underLoad(ctx context.Context, all []*calm) (took time.Duration, seen lateness, err error) {
	if err := wait(ctx, 2*time.Second); err != nil {
		return took, seen, err
	}
	for _, c := range all {
		if c.before, err = c.world.tally(); err != nil {
			return took, seen, err
		}
	}
	calmDown, err := spin(loops, b.duration)
	if err != nil {
		return took, seen, err
	}
	defer calmDown()
	tell, err := witness(b.duration)
	if err != nil {
		return took, seen, err
	}
	began := time.Now()
	for time.Since(began) < b.duration {
		if err := wait(ctx, min(lookEvery, b.duration-time.Since(began))); err != nil {
			return took, seen, err
		}
		for _, c := range all {
			if c.now, err = c.world.tally(); err != nil {
				return took, seen, err
			}
			c.lease = min(c.lease, c.now.lease)
			c.roundTrip.add(c.now.roundTrip)
			n, why := c.changes()
			progress("quiet %s %v of %v: %d changes of holder %s, lease left %v, round trip %v", c.title,
				time.Since(began).Round(time.Second), b.duration, n, why, c.now.lease.Round(time.Millisecond), c.now.roundTrip.Round(10*time.Microsecond))
		}
	}
	took = time.Since(began)
	if seen, err = tell(); err != nil {
		return took, seen, err
	}
	for _, c := range all {
		if c.moves, err = c.world.moves(began); err != nil {
			return took, seen, err
		}
	}
	return took, seen, nil
}

// moves is how often since then the gateway that was elected was not the last one, by
// the logs of all.
func (w *world) moves(since time.Time) (int, error) {
	type line struct {
		Time   time.Time `json:"time"`
		Reason string    `json:"reason"`
		To     string    `json:"to"`
	}
	var elected []line
	for _, j := range w.Options.GatewayNodes {
		p, err := w.Program(lab.Gateway, j)
		if err != nil {
			return 0, err
		}
		log, err := os.ReadFile(p.Log)
		if err != nil {
			return 0, err
		}
		for text := range bytes.Lines(log) {
			var l line
			if json.Unmarshal(text, &l) == nil && l.Reason == "elected" {
				elected = append(elected, l)
			}
		}
	}
	slices.SortFunc(elected, func(a, b line) int { return a.Time.Compare(b.Time) })
	n := 0
	for i, l := range elected {
		if i > 0 && l.Time.After(since) && l.To != elected[i-1].To {
			n++
		}
	}
	return n, nil
}

// tally is the state of all gateways at one look.
type tally struct {
	transitions      map[string]uint64
	term             uint64
	priority         string
	lease, roundTrip time.Duration
}

func (w *world) tally() (tally, error) {
	t := tally{transitions: map[string]uint64{}}
	for _, j := range w.Options.GatewayNodes {
		s, err := w.status(lab.Gateway, j)
		if err != nil {
			return t, err
		}
		t.priority = s.Priority
		for _, v := range s.VIPs {
			t.term = max(t.term, v.Term)
			for reason, n := range v.Transitions {
				t.transitions[reason] += n
			}
			if v.Held {
				t.lease = time.Duration(v.LeaseSeconds * float64(time.Second))
				t.roundTrip = time.Duration(v.HeartbeatSeconds * float64(time.Second))
			}
		}
	}
	return t, nil
}

// spin keeps the processors busy for a time, or until it is told to stop. Each loop
// has a session of its own, so that the scheduler does not count it to us.
func spin(n int, d time.Duration) (stop func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find the program itself: %w", err)
	}
	var running []*exec.Cmd
	stop = func() {
		for _, c := range running {
			_ = c.Process.Kill()
			_ = c.Wait()
		}
	}
	for range n {
		c := exec.Command(self, "spin", (d + time.Minute).String())
		c.Env = append(os.Environ(), "GOMAXPROCS=1")
		c.SysProcAttr = &unix.SysProcAttr{Setsid: true, Pdeathsig: unix.SIGKILL}
		// The death signal is that of the thread which starts the child.
		if err := startKept(c); err != nil {
			stop()
			return nil, fmt.Errorf("start a busy loop: %w", err)
		}
		running = append(running, c)
	}
	return stop, nil
}

// startKept starts a child from a thread that lives as long as this process.
func startKept(c *exec.Cmd) error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		started <- c.Start()
		select {}
	}()
	return <-started
}

func spinCommand() *cobra.Command {
	return &cobra.Command{
		Use: "spin DURATION", Short: "Keep one processor busy", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			d, err := time.ParseDuration(args[0])
			if err != nil {
				return fmt.Errorf("spin %s: %w", args[0], err)
			}
			for end := time.Now().Add(d); time.Now().Before(end); {
			}
			return nil
		},
	}
}
