package node

import (
	"maps"
	"net/netip"

	"github.com/sallyport/sallyport/flows/conntrack"
	"github.com/sallyport/sallyport/gateway"
)

// memory is what the last apply saw, and what has changed since the last one that
// succeeded.
type memory struct {
	plan     gateway.Plan
	pods     []gateway.Pod
	standing gateway.Standing
	gained   map[netip.Addr]bool // addresses with other routes than before
	ended    gateway.Standing    // owners that are gone; nil: nobody has looked yet
	ways     map[uint32]bool     // marks that there was a way for
}

// follow takes in the next view.
func (m *memory) follow(pods []gateway.Pod, plan gateway.Plan) {
	if m.gained == nil {
		m.gained = map[netip.Addr]bool{}
	}
	for _, addr := range plan.Rerouted(m.plan) {
		m.gained[addr] = true
	}
	if m.standing == nil {
		m.standing = gateway.StandingOf(pods)
	} else {
		for addr, owner := range m.standing.Follow(m.pods, pods) {
			if _, known := m.ended[addr]; m.ended != nil && !known {
				m.ended[addr] = owner
			}
		}
	}
	m.plan, m.pods = plan, pods
}

// forget brings the connection-tracking table after the view. A pod that gained a
// route may have flows that nobody has answered: they carry the old decision and
// the old translation, and would keep both for as long as it keeps trying. And
// what a deleted pod or a deleted route leaves behind must not be taken up by
// anybody else.
func (a *Agent) forget(pods []gateway.Pod, plan gateway.Plan) error {
	m := &a.before
	m.follow(pods, plan)
	slots, err := a.cfg.Tunnel.Marks.Slots(plan.VIPs)
	if err != nil {
		return err
	}
	ways := make(map[uint32]bool, len(slots))
	for _, slot := range slots {
		ways[a.cfg.Tunnel.Marks.Value(slot)] = true
	}
	over := m.ended == nil || len(m.standing.Over(m.ended)) > 0 || !maps.Equal(m.ways, ways)
	limit := conntrack.Mark{Mask: a.cfg.Tunnel.Marks.Mask} // the kernel gives those without a mark only
	switch {
	case over:
		limit = conntrack.Mark{}
	case len(m.gained) == 0:
		return nil
	}
	// Going through the table takes the kernel milliseconds, however little is in it.
	if _, err := conntrack.Forget(conntrack.IPv4, limit, func(e *conntrack.Entry) bool {
		mark, ended := e.Mark&a.cfg.Tunnel.Marks.Mask, over && m.standing.Ended(m.ended, e.Original.Src)
		switch {
		case e.Zone != 0:
			return false
		case mark != 0:
			return ended || !ways[mark]
		case e.Status&conntrack.SeenReply == 0 && m.gained[e.Original.Src]:
			return true
		}
		// Born before its pod had a route, it would let the next pod out the same way.
		// With nothing from before, a source of no pod may be the host's own.
		return ended && m.ended != nil && plan.Takes(e.Original.Dst, gateway.Protocol(e.Original.Protocol), e.Original.DstPort)
	}); err != nil {
		return err
	}
	m.gained, m.ended, m.ways = nil, gateway.Standing{}, ways
	return nil
}
