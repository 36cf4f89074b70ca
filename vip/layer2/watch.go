package layer2

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// watchRetry is how long interfaces are looked at by hand after the kernel closed the watch.
const watchRetry = 200 * time.Millisecond

// Watch calls report with the state of each interface, and again whenever it changes:
// whether a VIP on it could be reached, and why not. It returns when ctx is done. An
// interface that does not exist is down until it appears.
func (h *Host) Watch(ctx context.Context, ifaces []string, report func(iface string, up bool, reason string)) error {
	last := map[string]string{}
	look := func() {
		for _, name := range ifaces {
			reason := h.down(name)
			if before, known := last[name]; known && before == reason {
				continue
			}
			last[name] = reason
			report(name, reason == "", reason)
		}
	}
	for ctx.Err() == nil {
		events, done := make(chan netlink.LinkUpdate, 64), make(chan struct{})
		err := netlink.LinkSubscribeWithOptions(events, done, netlink.LinkSubscribeOptions{
			Namespace: &h.ns, ErrorCallback: func(error) {}, // the channel is closed after every error that ends it
		})
		if err != nil {
			events = nil // looked at by hand until the next attempt
		}
		h.follow(ctx, events, look)
		close(done)
		if events != nil {
			for range events { // lets the subscription end, which may be about to send
			}
		}
	}
	return nil
}

// follow returns when ctx is done, or when events can no longer be relied on.
func (h *Host) follow(ctx context.Context, events <-chan netlink.LinkUpdate, look func()) {
	for {
		look() // after subscribing: what changed before is seen now
		var retry <-chan time.Time
		if events == nil {
			retry = time.After(watchRetry)
		}
		select {
		case <-ctx.Done():
			return
		case <-retry:
			return
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

// down says why a VIP on the interface could not be reached; "" if it could.
func (h *Host) down(name string) string {
	link, err := h.links.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return "does not exist"
	}
	if err != nil {
		return fmt.Sprintf("cannot be read: %v", err)
	}
	attrs := link.Attrs()
	switch {
	case attrs.Flags&net.FlagUp == 0:
		return "is set down"
	case attrs.RawFlags&unix.IFF_LOWER_UP == 0:
		return "has no carrier"
	case attrs.OperState != netlink.OperUp && attrs.OperState != netlink.OperUnknown: // RFC 2863; drivers without it say unknown
		return "is in operational state " + attrs.OperState.String()
	}
	return ""
}
