package node

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/sallyport/sallyport/flows/conntrack"
	"github.com/sallyport/sallyport/gateway"
)

// memory is what the last apply saw, for telling what has changed since.
type memory struct {
	standing gateway.Standing
	selected map[netip.Addr][]string // routes of each selected address
	ways     map[uint32]bool         // marks that there was a way for
}

// forget brings the connection-tracking table after the view. A pod that gained a
// route may have flows that nobody has answered: they carry the old decision and
// the old translation, and would keep both for as long as it keeps trying. And
// what a deleted pod or a deleted route leaves behind must not be taken up by
// anybody else.
func (a *Agent) forget(pods []gateway.Pod, plan gateway.Plan) error {
	now := memory{standing: gateway.StandingOf(pods), selected: make(map[netip.Addr][]string, len(plan.Pods)), ways: map[uint32]bool{}}
	gained := map[netip.Addr]bool{}
	var names []string // of the pod before: many have the same
	for i, p := range plan.Pods {
		if i == 0 || !slices.Equal(p.Routes, plan.Pods[i-1].Routes) {
			names = make([]string, 0, len(p.Routes))
			for _, r := range p.Routes {
				names = append(names, plan.Routes[r].Name)
			}
		}
		now.selected[p.Addr] = names
		if !slices.Equal(a.before.selected[p.Addr], names) {
			gained[p.Addr] = true
		}
	}
	slots, err := a.cfg.Tunnel.Marks.Slots(plan.VIPs)
	if err != nil {
		return err
	}
	for _, slot := range slots {
		now.ways[a.cfg.Tunnel.Marks.Value(slot)] = true
	}

	mask := a.cfg.Tunnel.Marks.Mask
	if len(gained) > 0 {
		if _, err := conntrack.Forget(conntrack.IPv4, conntrack.Mark{Mask: mask}, func(e *conntrack.Entry) bool {
			return e.Zone == 0 && e.Status&conntrack.SeenReply == 0 && gained[e.Original.Src]
		}); err != nil {
			return err
		}
	}
	if now.standing.AnyEnded(a.before.standing) || !maps.Equal(a.before.ways, now.ways) {
		if _, err := conntrack.Forget(conntrack.IPv4, conntrack.Mark{}, func(e *conntrack.Entry) bool {
			mark := e.Mark & mask
			ended := now.standing.Ended(a.before.standing, e.Original.Src)
			switch {
			case e.Zone != 0:
				return false
			case mark != 0:
				return ended || !now.ways[mark]
			}
			// Born before its pod had a route, it would let the next pod out the same way.
			// With nothing from before, a source of no pod may be the host's own.
			return ended && a.before.standing != nil && plan.Takes(e.Original.Dst, gateway.Protocol(e.Original.Protocol), e.Original.DstPort)
		}); err != nil {
			return err
		}
	}
	a.before = now
	return nil
}
