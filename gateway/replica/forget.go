package replica

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/sallyport/sallyport/flows/conntrack"
	"github.com/sallyport/sallyport/gateway"
	"github.com/sallyport/sallyport/vip"
)

// sweepApart is the least time between two walks over the connections for what has ended
// and whose place nobody took: with 100 pods a second that come and go, a walk for each
// view would be a quarter of a gateway's work.
const sweepApart = 500 * time.Millisecond

// forget removes from the gateway's zone what deleted pods and deleted routes leave
// behind: the next pod with the address must not take up their connections.
func (r *Replica) forget(pods []gateway.Pod, plan gateway.Plan) error {
	if r.standing == nil {
		r.standing = gateway.StandingOf(pods)
	} else {
		for addr, owner := range r.standing.Follow(r.pods, pods) {
			if _, known := r.ended[addr]; r.ended != nil && !known {
				r.ended[addr] = owner
			}
		}
	}
	r.pods = pods
	routes, over := routeIDs(plan), r.standing.Over(r.ended)
	gone := func(id uint16) bool { return r.routes[id] && !routes[id] }
	if r.mirror != nil {
		r.mirror.ended.note(over, r.standing, r.routes, routes)
	}
	taken := func(addr netip.Addr) bool { return r.standing[addr] != gateway.Owner{} }
	urgent := r.ended == nil || slices.ContainsFunc(over, taken) || slices.ContainsFunc(slices.Collect(maps.Keys(r.routes)), gone)
	switch {
	case urgent || len(over) > 0 && time.Since(r.swept) >= sweepApart:
		r.swept, r.dirty = time.Now(), false
		if _, err := conntrack.Forget(conntrack.IPv4, conntrack.Mark{}, func(e *conntrack.Entry) bool {
			return e.Zone == r.cfg.SNAT.Zone && (r.standing.Ended(r.ended, e.Original.Src) || gone(routeOf(e.Mark)))
		}); err != nil {
			return err
		}
		// Without an entry none of them gets another lease.
		if err := r.fast.end(func(pod netip.Addr, route uint16) bool { return r.standing.Ended(r.ended, pod) || gone(route) }); err != nil {
			return err
		}
		r.ended = gateway.Standing{}
	case len(over) > 0 && !r.dirty:
		r.dirty = true
		time.AfterFunc(sweepApart, r.loop.Kick)
	}
	r.routes = routes
	return nil
}

// move of a VIP to this member, or to another.
type move struct {
	vip  vip.VIP
	here bool
}

// moved notes that a member has taken the VIP. It never blocks the election.
func (r *Replica) moved(v vip.VIP, here bool) {
	if r.mirror != nil {
		return // the new holder tells what has become of them
	}
	select {
	case r.moves <- move{v, here}:
	default: // so many at once are many changes of holder; the next one is noted again
	}
}

// followMoves removes the connections of VIPs that went elsewhere. They live on
// there, and should the VIP come back, their windows here would be of long ago:
// conntrack would call their packets invalid (nf_conntrack_proto_tcp.c,
// tcp_in_window), where it picks up one that it does not know. Those of a VIP that
// came are made liberal: it may have been elsewhere unheard of here.
func (r *Replica) followMoves(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case m := <-r.moves:
			follow := forgetAll
			if m.here {
				follow = restoreNow
			}
			n, err := follow(ctx, conntrack.Scope{VIP: m.vip.Addr, Zone: r.cfg.SNAT.Zone})
			if err != nil {
				r.log.Error("connections of a VIP that moved are left as they were", "vip", m.vip.Addr, "here", m.here, "error", err)
				continue
			}
			r.log.Debug("connections of a VIP that moved", "vip", m.vip.Addr, "here", m.here, "connections", n)
		}
	}
}

func forgetAll(_ context.Context, s conntrack.Scope) (int, error) {
	return conntrack.Forget(conntrack.IPv4, conntrack.Mark{}, s.Has)
}

func restoreNow(ctx context.Context, s conntrack.Scope) (int, error) {
	timeouts, err := conntrack.ReadTimeouts()
	if err != nil {
		return 0, err
	}
	return restore(ctx, s, timeouts)
}

// restore makes a standby's entries those of a holder, until the context ends, and says how
// many it had to change.
func restore(ctx context.Context, s conntrack.Scope, t conntrack.Timeouts) (int, error) {
	w, err := conntrack.NewWriter()
	if err != nil {
		return 0, err
	}
	defer w.Close()
	defer context.AfterFunc(ctx, w.Close)()
	return s.Restore(w, t)
}
