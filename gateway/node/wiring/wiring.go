// Package wiring follows, over netlink, which interface of the node each pod's
// address is behind: that of a route of its own (Calico, ptp), or the bridge's port
// that its neighbour entry leads to (bridge, flannel). It tells at once when that ends.
package wiring

import (
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"sync"
	"time"

	"github.com/sallyport/sallyport/gateway"
)

// Watch follows the network namespace it was made in.
type Watch struct {
	log     *slog.Logger
	changed func()

	mu     sync.Mutex
	tables *tables                     // nil before the first complete reading
	round  uint64                      // of Follow, the first is 1
	follow map[netip.Addr]uint64       // the last round that named the address
	behind map[netip.Addr]gateway.Home // of those followed
}

// retry is how long a reading that went wrong waits for the next.
const retry = 500 * time.Millisecond

// New starts nothing. Changed is called, without delay, when something has changed
// for an address that is followed.
func New(changed func(), log *slog.Logger) *Watch {
	return &Watch{log: log, changed: changed, follow: map[netip.Addr]uint64{}, behind: map[netip.Addr]gateway.Home{}}
}

// Follow replaces the addresses of interest, and gives what the network says of them
// now. An address of a bridge's own range that the bridge does not know is asked for.
func (w *Watch) Follow(addrs []netip.Addr) gateway.Network {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.round++
	var silent []netip.Addr
	now := 0
	for _, a := range addrs {
		before, followed := w.follow[a]
		if before != w.round {
			now++
			w.follow[a] = w.round
		}
		if followed || w.tables == nil {
			continue
		}
		if home, known := w.tables.home(a); known {
			w.behind[a] = home
		} else {
			silent = append(silent, a)
		}
	}
	if now < len(w.follow) {
		maps.DeleteFunc(w.follow, func(a netip.Addr, round uint64) bool {
			if round != w.round {
				delete(w.behind, a)
			}
			return round != w.round
		})
	}
	if len(silent) > 0 {
		if err := ask(silent); err != nil {
			w.log.Warn("pods' addresses are not asked for: the end of a pod that is silent is not seen before the API shows it", "error", err)
		}
	}
	if w.tables == nil {
		return gateway.Network{}
	}
	return gateway.Network{Behind: maps.Clone(w.behind), Interfaces: maps.Clone(w.tables.live)}
}

// look brings behind up to date and tells whether anything changed.
func (w *Watch) look() bool {
	now := make(map[netip.Addr]gateway.Home, len(w.follow))
	if w.tables != nil {
		for a := range w.follow {
			if home, known := w.tables.home(a); known {
				now[a] = home
			}
		}
	}
	if maps.Equal(now, w.behind) {
		return false
	}
	w.behind = now
	return true
}

// Run serves until the context ends. After the kernel lost events everything is read anew.
func (w *Watch) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := w.once(ctx); err != nil && ctx.Err() == nil {
			w.log.Warn("the node's interfaces and routes are read anew", "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(retry):
			}
		}
	}
	return nil
}

func (w *Watch) once(ctx context.Context) error {
	// Before reading: what changes meanwhile is heard, and applied to what was read.
	events, err := subscribe()
	if err != nil {
		return err
	}
	defer events.close()
	fresh, err := read()
	if err != nil {
		return err
	}
	w.apply(func() bool {
		again := w.tables == nil
		w.tables = fresh
		if again {
			w.follow = map[netip.Addr]uint64{} // those that are not known are asked for
		}
		return true
	})
	for {
		select {
		case <-ctx.Done():
			return nil
		case u, ok := <-events.links:
			if !ok {
				return events.lost()
			}
			w.apply(func() bool { return fresh.link(u) })
		case u, ok := <-events.routes:
			if !ok {
				return events.lost()
			}
			w.apply(func() bool { fresh.route(u.Type, u.Route); return false })
		case u, ok := <-events.neighbours:
			if !ok {
				return events.lost()
			}
			w.apply(func() bool { fresh.neighbour(u.Type, u.Neigh); return false })
		}
	}
}

// apply a change, which says whether it matters whatever the homes are.
func (w *Watch) apply(change func() bool) {
	w.mu.Lock()
	matters := change()
	matters = w.look() || matters
	w.mu.Unlock()
	if matters {
		w.changed()
	}
}
