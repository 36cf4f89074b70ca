package layer2

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
)

// Reaper removes addresses of ours that this host has although the fence is closed
// for them: their holder was killed or hangs. Behind the fence such an address does
// nobody else harm, but this host's own packets to the VIP end in it.
type Reaper struct {
	host  *Host
	fence *Fence
	vips  func() []netip.Addr
	log   *slog.Logger
}

const (
	// reapGrace is for a holder that comes a little late: it loses its lease, but
	// need not lose the address too.
	reapGrace = 50 * time.Millisecond
	reapEvery = 50 * time.Millisecond
	// reapRetry is how long the host goes unwatched after the kernel closed the watch.
	reapRetry = time.Second
)

// NewReaper starts nothing. Vips gives the addresses that may be ours on a kernel that
// keeps no address protocol.
func NewReaper(h *Host, f *Fence, vips func() []netip.Addr, log *slog.Logger) *Reaper {
	return &Reaper{host: h, fence: f, vips: vips, log: log}
}

// Run returns when ctx is done. It sleeps until an address of the host changes, and
// looks often only while one of ours is there.
func (r *Reaper) Run(ctx context.Context) error {
	closed := map[address]time.Time{} // since when the fence was seen closed
	for ctx.Err() == nil {
		events, stop, err := r.host.addressEvents(r.log)
		if err != nil {
			r.log.Warn("watch addresses", "error", err)
		}
		r.follow(ctx, events, closed)
		stop()
	}
	return nil
}

// follow returns when ctx is done, or when events can no longer be relied on.
func (r *Reaper) follow(ctx context.Context, events <-chan netlink.AddrUpdate, closed map[address]time.Time) {
	var retry <-chan time.Time
	for {
		var again <-chan time.Time
		if present, err := r.check(closed); err != nil {
			r.log.Warn("look for addresses without a holder", "error", err)
			again = time.After(reapRetry)
		} else if present {
			again = time.After(reapEvery)
		}
		if events == nil && retry == nil {
			retry = time.After(reapRetry)
		}
		select {
		case <-ctx.Done():
			return
		case <-retry:
			return
		case <-again:
		case _, ok := <-events:
			if !ok {
				events = nil
			}
			for len(events) > 0 {
				<-events
			}
		}
	}
}

// check removes what has had no holder for the grace, and says whether an address of
// ours remains.
func (r *Reaper) check(closed map[address]time.Time) (bool, error) {
	all, err := r.host.addresses()
	if err != nil {
		return false, err
	}
	var ours []address
	for _, a := range all {
		if r.host.ours(a, r.vips()) {
			ours = append(ours, a)
		}
	}
	if len(ours) == 0 {
		clear(closed)
		return false, nil
	}
	// After the addresses: a claim opens the fence first.
	open, err := r.fence.Held()
	if err != nil {
		return true, err
	}
	present, now := map[address]bool{}, time.Now()
	for _, a := range ours {
		present[a] = true
		since, known := closed[a]
		switch _, isOpen := open[a.addr]; {
		case isOpen:
			delete(closed, a)
		case !known:
			closed[a] = now
		case now.Sub(since) >= reapGrace:
			if err := r.reap(a); err != nil {
				return true, err
			}
			delete(closed, a)
			delete(present, a)
		}
	}
	for a := range closed {
		if !present[a] {
			delete(closed, a)
		}
	}
	return len(present) > 0, nil
}

func (r *Reaper) reap(a address) error {
	if err := r.host.deleteAddress(a); err != nil {
		return err
	}
	// It may have been claimed between the look and the removal; a claim opens the
	// fence first, so that it shows now.
	open, err := r.fence.Held()
	if err != nil {
		return err
	}
	if _, isOpen := open[a.addr]; isOpen {
		return r.host.addAddress(a.addr, fmt.Sprintf("interface %d", a.index), a.index)
	}
	r.log.Info("removed an address without a holder", "address", a.addr)
	return nil
}
