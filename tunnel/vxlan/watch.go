package vxlan

import (
	"context"
	"fmt"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// watchRetry is how long a subscription that ended waits for the next.
const watchRetry = 500 * time.Millisecond

// WatchMTU calls changed when an interface has another MTU than before: ours follows the
// underlay's at the next Apply, and until then large packets are lost. Ours itself does
// not count, or who sets it again and again would be fought as fast. It returns when ctx is done.
func (a *Applier) WatchMTU(ctx context.Context, changed func()) error {
	known := mtus{} // kept, so that nothing is missed between two subscriptions
	for ctx.Err() == nil {
		if err := a.followMTU(ctx, known, changed); err != nil {
			a.log.Warn("the MTU of interfaces is not followed, and looked at with the next view", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(watchRetry):
		}
	}
	return nil
}

// followMTU returns when ctx is done, or the kernel ends the subscription.
func (a *Applier) followMTU(ctx context.Context, known mtus, changed func()) error {
	events, done := make(chan netlink.LinkUpdate, 64), make(chan struct{})
	err := netlink.LinkSubscribeWithOptions(events, done, netlink.LinkSubscribeOptions{
		ListExisting: true, ErrorCallback: func(error) {}, // the channel is closed after every error that ends it
	})
	if err != nil {
		return fmt.Errorf("listen for changes of interfaces: %w", err)
	}
	defer func() {
		close(done)
		for range events { // lets the subscription end, which may be about to send
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case u, ok := <-events:
			if !ok {
				return nil
			}
			if known.differ(u.Attrs(), u.Header.Type == unix.RTM_DELLINK) && u.Attrs().Name != a.cfg.Device {
				changed()
			}
		}
	}
}

// mtus of interfaces.
type mtus map[int]int

// differ takes what is so now, and says whether it was otherwise before.
func (m mtus) differ(l *netlink.LinkAttrs, gone bool) bool {
	before, known := m[l.Index]
	m[l.Index] = l.MTU
	if gone {
		delete(m, l.Index)
	}
	return known && !gone && before != l.MTU
}
