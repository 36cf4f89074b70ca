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

// calm is what the gateways say of themselves over a time of load.
type calm struct {
	timing, priority string
	took             time.Duration
	transitions      map[string]uint64 // seen by any replica, by reason
	terms            uint64
	moves            int           // of the VIP to another gateway
	lease            time.Duration // the least that was left of it at a look
	roundTrip        trials
	witness          lateness
}

func (c calm) failovers() uint64 {
	var sum uint64
	for _, n := range c.transitions {
		sum += n
	}
	return sum
}

func (b *bench) quiet(ctx context.Context) (string, error) {
	rows := [][]string{{"timing", "under load for", "changes of holder", "elections", "moves", "least of the lease left", "heartbeat's round trip, median / p95, ms", "priority", "a witness late"}}
	var text string
	for _, timing := range []string{"default", "fast"} {
		if !b.wants(timing) {
			continue
		}
		c, err := b.underLoad(ctx, timing)
		if err != nil {
			return "", err
		}
		changes := "0"
		if n := c.failovers(); n > 0 {
			var why []string
			for _, reason := range slices.Sorted(maps.Keys(c.transitions)) {
				why = append(why, fmt.Sprintf("%s %d", reason, c.transitions[reason]))
			}
			changes = fmt.Sprintf("%d (%s)", n, strings.Join(why, ", "))
		}
		rows = append(rows, []string{timing, c.took.Round(time.Second).String(), changes, fmt.Sprint(c.terms), fmt.Sprint(c.moves),
			fmt.Sprintf("%.0f ms", 1e3*c.lease.Seconds()), c.roundTrip.inMillis("%.1f"), c.priority,
			fmt.Sprintf("%d times, at most %.0f ms", c.witness.TooLate, 1e3*c.witness.Most.Seconds())})
		text += verdict("changes of holder with "+timing+" timing", float64(c.failovers()), 0, c.failovers() == 0, "%.0f")
	}
	autogroup := "without autogroups"
	if read("/proc/sys/kernel/sched_autogroup_enabled") == "1" {
		autogroup = "each in a scheduler autogroup of its own"
	}
	return fmt.Sprintf(`## False failovers

Three gateways and three agents on %d processors, beside %d busy loops at normal priority, %s.
"Changes of holder" is the sum over all replicas' transitions, of which none was wanted; "elections" is by how much the term
rose, "moves" how many of them were won by another gateway than the one before: a holder that was kept from a processor for too long, and
was missed by nobody, is elected again within a millisecond. The lease and the round trip are those of /status, looked at every %v. The witness is a thread that does nothing but wake up every %v, in the highest priority
of real time; "late" is by more than %v, with which a lease of fast ends before the next heartbeat, whatever program it is of.

%s
%s`, runtime.NumCPU(), loops, autogroup, lookEvery, heartbeat, tooLate, table(rows), text), nil
}

func (b *bench) underLoad(ctx context.Context, timing string) (c calm, err error) {
	w, err := b.up("q", lab.Options{GatewayArgs: []string{"--timing", timing}})
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	if err := w.start(); err != nil {
		return c, err
	}
	if err := wait(ctx, 2*time.Second); err != nil {
		return c, err
	}
	c = calm{timing: timing, transitions: map[string]uint64{}, lease: time.Hour}
	before, err := w.tally()
	if err != nil {
		return c, err
	}
	calmDown, err := spin(loops, b.duration)
	if err != nil {
		return c, err
	}
	defer calmDown()
	tell, err := witness(b.duration)
	if err != nil {
		return c, err
	}
	began := time.Now()
	for time.Since(began) < b.duration {
		if err := wait(ctx, min(lookEvery, b.duration-time.Since(began))); err != nil {
			return c, err
		}
		now, err := w.tally()
		if err != nil {
			return c, err
		}
		for reason, n := range now.transitions {
			if more := n - before.transitions[reason]; more > 0 {
				c.transitions[reason] = more
			}
		}
		c.terms, c.priority = now.term-before.term, now.priority
		c.lease = min(c.lease, now.lease)
		c.roundTrip.add(now.roundTrip)
		progress("quiet %s %v of %v: %d changes of holder %v, lease left %v, round trip %v", timing,
			time.Since(began).Round(time.Second), b.duration, c.failovers(), c.transitions, now.lease.Round(time.Millisecond),
			now.roundTrip.Round(10*time.Microsecond))
	}
	c.took = time.Since(began)
	if c.witness, err = tell(); err != nil {
		return c, err
	}
	c.moves, err = w.moves(began)
	return c, err
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
