package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sallyport/sallyport/e2e/lab"
	"github.com/sallyport/sallyport/flows"
	"github.com/sallyport/sallyport/flows/conntrack"
)

// stream makes new connections at a pace, ends each a while later, and hears in a
// standby's kernel when each is there.
func (b *bench) stream(ctx context.Context, c *crowd, r *replicated) error {
	if err := c.inStep(ctx); err != nil {
		return err
	}
	var mu sync.Mutex
	born := map[flows.Key]time.Time{}
	var ears *conntrack.Listener
	if err := c.inside(c.standby, func() (err error) {
		ears, err = conntrack.Listen(c.scope.Zone, conntrack.Everything)
		return err
	}); err != nil {
		return err
	}
	defer ears.Close()
	listening, stop := context.WithCancel(ctx)
	var g errgroup.Group
	lost := 0
	g.Go(func() error {
		return ears.Run(listening, func(batch []conntrack.Event) {
			now := time.Now()
			mu.Lock()
			defer mu.Unlock()
			for i := range batch {
				ev := &batch[i]
				if ev.Kind == conntrack.Lost {
					lost++
				}
				if ch, ok := c.scope.Change(ev); ok && ev.Kind == conntrack.New { // a standby has it established at once
					if at, ours := born[ch.Flow.Key]; ours {
						r.lags.add(now.Sub(at))
						delete(born, ch.Flow.Key)
					}
				}
			}
		})
	})
	before, err := c.usage()
	if err != nil {
		stop()
		return err
	}
	const each, later = flowRate * int(flowTick) / int(time.Second), int(flowLives / flowTick)
	began := time.Now()
	ticker := time.NewTicker(flowTick)
	defer ticker.Stop()
	rounds := 0
	for time.Since(began) < flowTime && err == nil {
		// What a busy machine made late is caught up, so that the rate is the one asked for.
		for due := int(time.Since(began) / flowTick); rounds < due && err == nil; rounds++ {
			changes := puts(flows.Put, rounds*each, each)
			at := time.Now()
			mu.Lock()
			for _, ch := range changes {
				born[ch.Flow.Key] = at
			}
			mu.Unlock()
			if rounds >= later {
				changes = append(changes, puts(flows.Delete, (rounds-later)*each, each)...)
			}
			err = c.change(c.holder, changes)
		}
		select {
		case <-ctx.Done():
			err = ctx.Err()
		case <-ticker.C:
		}
	}
	took := time.Since(began).Seconds()
	if err == nil {
		err = lab.Await(patience, func() error {
			mu.Lock()
			defer mu.Unlock()
			if len(born) > 0 {
				return fmt.Errorf("%d connections have not arrived, %d overruns here", len(born), lost)
			}
			return nil
		})
	}
	after, uerr := c.usage()
	stop()
	if werr := g.Wait(); err == nil {
		err = werr
	}
	if err != nil || uerr != nil {
		return fmt.Errorf("stream of new connections: %w", firstOf(err, uerr))
	}
	r.rate = float64(rounds*each) / took
	r.holderCPU, r.standbyCPU = (after.holderCPU-before.holderCPU)/took, (after.standbyCPU-before.standbyCPU)/took
	progress("flows: %.0f new connections a second, lag median %.1f ms, p99 %.1f ms; processor: holder %.0f %%, standby %.0f %%",
		r.rate, 1e3*r.lags.median(), 1e3*r.lags.quantile(.99), 100*r.holderCPU, 100*r.standbyCPU)
	if err := c.change(c.holder, puts(flows.Delete, max(0, rounds-later)*each, later*each)); err != nil {
		return err
	}
	return c.inStep(ctx)
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// hoard lets connections gather.
func (b *bench) hoard(ctx context.Context, c *crowd, r *replicated) error {
	if err := wait(ctx, settling); err != nil {
		return err
	}
	before, err := c.usage()
	if err != nil {
		return err
	}
	slab := slabBytes()
	if err := c.gather(ctx, flowCrowd); err != nil {
		return err
	}
	if err := c.inStep(ctx); err != nil {
		return err
	}
	r.kernelBytes = (slabBytes() - slab) / float64(flowCrowd*len(c.w.Options.GatewayNodes))
	if err := wait(ctx, settling); err != nil {
		return err
	}
	after, err := c.usage()
	if err != nil {
		return err
	}
	r.holderMB, r.standbyMB = after.holderMB-before.holderMB, after.standbyMB-before.standbyMB
	r.holderSeconds, r.standbySeconds = after.holderCPU-before.holderCPU, after.standbyCPU-before.standbyCPU
	progress("flows: %d connections more: holder %+.0f MB, %.1f s of processor; standby %+.0f MB, %.1f s; %.0f bytes each in a kernel",
		flowCrowd, r.holderMB, r.holderSeconds, r.standbyMB, r.standbySeconds, r.kernelBytes)
	return nil
}

// gather puts so many connections into the holder's kernel, not faster than standbys take them.
func (c *crowd) gather(ctx context.Context, n int) error {
	const part = 2000
	for first := 0; first < n; first += part {
		if err := c.change(c.holder, puts(flows.Put, first, part)); err != nil {
			return err
		}
		if err := wait(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// slabBytes is what the kernel's connection-tracking entries take, on all nodes.
func slabBytes() float64 {
	text, _ := os.ReadFile("/proc/slabinfo")
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 3 && f[0] == "nf_conntrack" {
			objects, _ := strconv.ParseFloat(f[2], 64)
			size, _ := strconv.ParseFloat(f[3], 64)
			return objects * size
		}
	}
	return 0
}

// join starts a standby with an empty kernel beside a holder with all connections.
func (b *bench) join(ctx context.Context, c *crowd, r *replicated) error {
	if err := c.change(c.holder, puts(flows.Put, 0, flowAll)); err != nil {
		return err
	}
	if err := c.inStep(ctx); err != nil {
		return err
	}
	for n := range min(b.trials, flowTrials) {
		p, err := c.w.Program(lab.Gateway, c.standby)
		if err != nil {
			return err
		}
		if err := p.Kill(); err != nil {
			return err
		}
		if _, err := c.w.Exec(lab.NodeName(c.standby), "conntrack", "-F"); err != nil {
			return err
		}
		began := time.Now()
		if _, err := c.w.StartGateway(c.standby); err != nil {
			return err
		}
		// The kernel's own count, not anybody's word.
		if err := lab.Await(4*patience, func() error {
			if have, err := c.tracked(c.standby); err != nil || have < flowAll {
				return fmt.Errorf("n%d has %d of %d connections, %v", c.standby, have, flowAll, err)
			}
			return nil
		}); err != nil {
			return err
		}
		r.catchUp.add(time.Since(began))
		if err := c.inStep(ctx); err != nil {
			return err
		}
		s, err := c.w.status(lab.Gateway, c.standby)
		if err != nil {
			return err
		}
		r.refused += refusedBy(s)
		used, err := c.processor(c.standby)
		if err != nil {
			return err
		}
		r.catchUpCPU = append(r.catchUpCPU, used)
		progress("flows %d/%d: a fresh standby had %d connections %.2f s after its start", n+1, min(b.trials, flowTrials), flowAll, r.catchUp[n])
	}
	return nil
}

// tracked is a node's kernel's count of its entries.
func (c *crowd) tracked(j int) (entries uint64, err error) {
	err = c.inside(j, func() error {
		b, err := os.ReadFile("/proc/thread-self/net/stat/nf_conntrack")
		if err != nil {
			return err
		}
		// Every line, one for each processor, begins with the count, in hexadecimal.
		_, lines, _ := strings.Cut(string(b), "\n")
		first, _, _ := strings.Cut(lines, " ")
		entries, err = strconv.ParseUint(first, 16, 64)
		return err
	})
	return entries, err
}

func flowsText(r replicated) string {
	text := fmt.Sprintf(`## Replicated connections

Three gateways, one VIP. Connections are put into the holder's kernel over netlink, established, as the packet path
leaves them there; everything after the kernel's event is what it is with packets. The lag is from before the holder's kernel is asked until a
standby's kernel announces the connection, to one listener of this command's own. At %d new connections a second each ends %v later.

%s
The kernel keeps an entry on each gateway. What sets the limit is the processor: the holder reads an event of some microseconds, a standby's
kernel takes an entry in as much. %d event overruns, %d snapshots, %d connections refused, %d elections.

`, flowRate, flowLives, table([][]string{
		{"", "measured"},
		{fmt.Sprintf("new connections a second, of %d asked for", flowRate), fmt.Sprintf("%.0f", r.rate)},
		{"lag, ms, median / p99 / most", fmt.Sprintf("%.1f / %.1f / %.1f", 1e3*r.lags.median(), 1e3*r.lags.quantile(.99), 1e3*r.lags.quantile(1))},
		{"processor at that rate, holder / standby, % of one", fmt.Sprintf("%.0f / %.0f", 100*r.holderCPU, 100*r.standbyCPU)},
		{fmt.Sprintf("processor for %d short connections by packets, holder / standby / packets and both ends, s", shortOnes),
			fmt.Sprintf("%.2f / %.2f / %.2f", r.shortHolder.median(), r.shortStandby.median(), r.shortPath.median())},
		{fmt.Sprintf("memory of the program for %d connections more, holder / standby, MB", flowCrowd), fmt.Sprintf("%+.0f / %+.0f", r.holderMB, r.standbyMB)},
		{fmt.Sprintf("processor for %d connections more, holder / standby, s", flowCrowd), fmt.Sprintf("%.1f / %.1f", r.holderSeconds, r.standbySeconds)},
		{"memory of a connection in a kernel, bytes", fmt.Sprintf("%.0f", r.kernelBytes)},
		{fmt.Sprintf("start of a fresh standby to %d connections in its kernel, s, median / most", flowAll), fmt.Sprintf("%.2f / %.2f", r.catchUp.median(), r.catchUp.quantile(1))},
		{"processor of that standby meanwhile, s", fmt.Sprintf("%.1f", r.catchUpCPU.median())},
	}), r.overruns, r.snapshots, r.refused, r.terms)
	return text
}
