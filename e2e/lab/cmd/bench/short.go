package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

const (
	shortOnes = 10000
	shortRuns = 3
)

// short opens connections by packets, each ended by the partner at once, and gives the
// processor time that they cost: what runs on a busy machine takes longer, and not more of it.
func (b *bench) short(ctx context.Context, c *crowd, r *replicated) error {
	from := pod(c.standby)
	if err := errors.Join(c.w.seen(from), c.inStep(ctx)); err != nil {
		return err
	}
	hangUp, err := acceptAll(c.w)
	if err != nil {
		return err
	}
	defer hangUp()
	for n := range min(b.trials, shortRuns) {
		if err := c.w.forgetFlows(); err != nil {
			return err
		}
		if err := errors.Join(wait(ctx, settling), c.inStep(ctx)); err != nil {
			return err
		}
		before, path, err := c.worked()
		if err != nil {
			return err
		}
		began := time.Now()
		if err := c.w.connectMany(ctx, from); err != nil {
			return err
		}
		took := time.Since(began)
		// What ends a connection is told, too.
		if err := c.inStep(ctx); err != nil {
			return err
		}
		after, pathAfter, err := c.worked()
		if err != nil {
			return err
		}
		r.shortHolder = append(r.shortHolder, after.holderCPU-before.holderCPU)
		r.shortStandby = append(r.shortStandby, after.standbyCPU-before.standbyCPU)
		r.shortPath = append(r.shortPath, pathAfter-path)
		progress("flows %d/%d: %d short connections in %.1f s: holder %.2f s of processor, standby %.2f, their packets %.2f",
			n+1, min(b.trials, shortRuns), shortOnes, took.Seconds(), r.shortHolder[n], r.shortStandby[n], r.shortPath[n])
	}
	return nil
}

// worked is what gateways have used, and this process: its system calls carry the packets
// from one end to the other.
func (c *crowd) worked() (u usage, path float64, err error) {
	if u, err = c.usage(); err != nil {
		return u, 0, err
	}
	var own unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &own); err != nil {
		return u, 0, fmt.Errorf("read the processor time of this process: %w", err)
	}
	return u, time.Duration(own.Stime.Nano()).Seconds(), nil
}

// connectMany opens shortOnes connections, a few at a time.
func (w *world) connectMany(ctx context.Context, from string) error {
	ns, err := w.Namespace(from)
	if err != nil {
		return err
	}
	var g errgroup.Group
	var begun atomic.Int64
	for range dialers {
		g.Go(func() error {
			return ns.Do(func() error {
				for begun.Add(1) <= shortOnes && ctx.Err() == nil {
					if err := connectOnce(partnerPort(acceptPort)); err != nil {
						return err
					}
				}
				return ctx.Err()
			})
		})
	}
	return g.Wait()
}
