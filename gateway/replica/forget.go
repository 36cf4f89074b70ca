package replica

import (
	"context"
	"maps"
	"slices"

	"github.com/sallyport/sallyport/flows/conntrack"
	"github.com/sallyport/sallyport/gateway"
	"github.com/sallyport/sallyport/vip"
)

// forget removes from the gateway's zone what deleted pods and deleted routes leave
// behind: the next pod with the address must not take up their connections.
func (r *Replica) forget(pods []gateway.Pod, plan gateway.Plan) error {
	now, routes := gateway.StandingOf(pods), routeIDs(plan)
	gone := func(id uint16) bool { return r.routes[id] && !routes[id] }
	if r.mirror != nil {
		r.mirror.ended.note(r.before, now, r.routes, routes)
	}
	if now.AnyEnded(r.before) || slices.ContainsFunc(slices.Collect(maps.Keys(r.routes)), gone) {
		if _, err := conntrack.Forget(conntrack.IPv4, conntrack.Mark{}, func(e *conntrack.Entry) bool {
			return e.Zone == r.cfg.SNAT.Zone && (now.Ended(r.before, e.Original.Src) || gone(routeOf(e.Mark)))
		}); err != nil {
			return err
		}
	}
	r.before, r.routes = now, routes
	return nil
}

// moved notes that another member has taken the VIP. It never blocks the election.
func (r *Replica) moved(v vip.VIP) {
	if r.mirror != nil {
		return // the new holder tells what has become of them
	}
	select {
	case r.movedTo <- v:
	default: // so many at once are many changes of holder; the next one is noted again
	}
}

// forgetMoved removes the connections of VIPs that went elsewhere. They live on
// there, and should the VIP come back, their windows here would be of long ago:
// conntrack would call their packets invalid (nf_conntrack_proto_tcp.c,
// tcp_in_window), where it picks up one that it does not know.
func (r *Replica) forgetMoved(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case v := <-r.movedTo:
			n, err := conntrack.Forget(conntrack.IPv4, conntrack.Mark{}, func(e *conntrack.Entry) bool {
				return e.Zone == r.cfg.SNAT.Zone && e.Reply.Dst == v.Addr
			})
			if err != nil {
				r.log.Error("connections of a VIP that moved are not forgotten", "vip", v.Addr, "error", err)
				continue
			}
			r.log.Debug("connections of a VIP that moved are forgotten", "vip", v.Addr, "connections", n)
		}
	}
}
