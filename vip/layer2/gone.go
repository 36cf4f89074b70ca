package layer2

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
)

// goneGap is how long nobody looks again: with who takes an address off whenever it comes
// nobody is to fight faster.
const goneGap = 100 * time.Millisecond

// WatchGone calls report with those of the addresses that the host has, whenever one of them may
// have gone. It returns when ctx is done.
func (h *Host) WatchGone(ctx context.Context, addrs []netip.Addr, log *slog.Logger, report func(present []netip.Addr)) error {
	for ctx.Err() == nil {
		events, stop, err := h.addressEvents(log)
		if err != nil {
			log.Warn("watch addresses", "error", err)
		}
		for open := true; open && ctx.Err() == nil; { // listed after subscribing: what went before is seen now
			if all, err := h.addresses(); err != nil {
				log.Warn("look for addresses that have gone", "error", err)
			} else {
				present := []netip.Addr{}
				for _, a := range all {
					if slices.Contains(addrs, a.addr) {
						present = append(present, a.addr)
					}
				}
				report(present)
			}
			select {
			case <-ctx.Done():
			case <-time.After(goneGap):
				open = gone(ctx, events, addrs)
			}
		}
		stop()
	}
	return nil
}

// gone waits until one of the addresses goes; false: events cannot be relied on.
func gone(ctx context.Context, events <-chan netlink.AddrUpdate, addrs []netip.Addr) bool {
	var retry <-chan time.Time
	if events == nil {
		retry = time.After(reapRetry)
	}
	for {
		select {
		case <-ctx.Done():
			return true
		case <-retry:
			return false
		case e, ok := <-events:
			if !ok {
				return false
			}
			if a, valid := netip.AddrFromSlice(e.LinkAddress.IP); valid && !e.NewAddr && slices.Contains(addrs, a.Unmap()) {
				return true
			}
		}
	}
}

// addressEvents gives a channel that is closed when the kernel ends the subscription.
func (h *Host) addressEvents(log *slog.Logger) (<-chan netlink.AddrUpdate, func(), error) {
	events, done := make(chan netlink.AddrUpdate, 64), make(chan struct{})
	err := netlink.AddrSubscribeWithOptions(events, done, netlink.AddrSubscribeOptions{
		Namespace:     &h.ns,
		ErrorCallback: func(err error) { log.Debug("address events", "error", err) },
	})
	if err != nil {
		return nil, func() {}, fmt.Errorf("subscribe to address events: %w", err)
	}
	return events, func() {
		close(done)
		for range events { // lets the subscription end, which may be about to send
		}
	}, nil
}
