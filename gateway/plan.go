package gateway

import (
	"iter"
	"net/netip"
	"slices"
)

// Plan is what a Snapshot asks for, in terms of addresses only.
type Plan struct {
	Routes []PlannedRoute // by precedence: the older first, then by name
	Pods   []PlannedPod   // selected pods with an address, sorted by address
	// Members are all pods of the view that have an address of their own, selected
	// or not: where replies for a connection born under an earlier plan go.
	Members []Member
	// Peers are all node addresses, sorted: only these may be the outer source of a tunnel packet.
	Peers []netip.Addr
	// VIPs that the routes ask for, sorted.
	VIPs []netip.Addr
}

// PlannedRoute is a route that takes effect.
type PlannedRoute struct {
	Name string
	// ID is 1..65535, the same on every replica that sees the same routes.
	ID           uint16
	Generation   int64 // of the spec that is planned
	VIP          netip.Addr
	Destinations []Destination
	FailOpen     bool // see Route
	Exclusive    bool
	Audit        bool
	Pods         int // selected pods, for status
}

// PlannedPod is one address of a selected pod.
type PlannedPod struct {
	Addr      netip.Addr
	Namespace string
	Name      string
	UID       string
	Node      string
	Routes    []int // indexes into Plan.Routes, ascending, never empty
	// Disputed: two live pods with different routes, or on different nodes, have
	// this address, and nothing tells whose a packet is. Nodes steer what either
	// pod's routes take, so that it cannot leave with another source; gateways
	// refuse it (see Plan.Admitted), so that no pod gets what only the other may.
	Disputed bool
}

// Member is one pod address and the tunnel end of the node it is on.
type Member struct {
	Addr netip.Addr
	Node netip.Addr
}

// Nodes are the members' addresses, in their order, with the tunnel end of each one's node.
func (p Plan) Nodes() iter.Seq2[netip.Addr, netip.Addr] {
	return func(yield func(addr, node netip.Addr) bool) {
		for _, m := range p.Members {
			if !yield(m.Addr, m.Node) {
				return
			}
		}
	}
}

// Admitted is the plan without the disputed addresses: what a gateway translates.
func (p Plan) Admitted() Plan {
	disputed := func(pod PlannedPod) bool { return pod.Disputed }
	if slices.ContainsFunc(p.Pods, disputed) {
		p.Pods = slices.DeleteFunc(slices.Clone(p.Pods), disputed)
	}
	return p
}

// Rerouted are the addresses that have other routes than in the plan before.
func (p Plan) Rerouted(before Plan) []netip.Addr {
	named := slices.EqualFunc(p.Routes, before.Routes, func(a, b PlannedRoute) bool { return a.Name == b.Name })
	same := func(a, b PlannedPod) bool {
		if named {
			return slices.Equal(a.Routes, b.Routes)
		}
		return slices.EqualFunc(a.Routes, b.Routes, func(a, b int) bool { return p.Routes[a].Name == before.Routes[b].Name })
	}
	var others []netip.Addr
	earlier := before.Pods
	for _, pod := range p.Pods {
		for len(earlier) > 0 && earlier[0].Addr.Less(pod.Addr) {
			earlier = earlier[1:]
		}
		if len(earlier) == 0 || earlier[0].Addr != pod.Addr || !same(pod, earlier[0]) {
			others = append(others, pod.Addr)
		}
	}
	return others
}
