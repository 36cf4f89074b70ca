package gateway

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// Build derives the Plan of a Snapshot, and the Problems: the Snapshot's own and
// those found on the way, sorted. Known are the VIPs that gateways are configured
// to hold; nil when that is not for the caller to judge. Build changes nothing in
// the Snapshot, but the Plan may share parts of it.
//
// A route whose VIP nobody holds is planned all the same: its pods' packets must
// not leave with another source.
func Build(s Snapshot, known []netip.Addr) (Plan, []Problem) {
	found := problems(slices.Clone(s.Problems))
	routes := byPrecedence(s.Routes, &found)
	nodes := nodesOf(s.Nodes, &found)

	var plan Plan
	for _, n := range nodes {
		plan.Peers = append(plan.Peers, n.Addrs...)
	}
	plan.Peers = SortedAddrs(plan.Peers)
	for _, r := range routes {
		plan.VIPs = append(plan.VIPs, r.VIP)
		if known != nil && !slices.Contains(known, r.VIP) {
			found.add(routeObject(r.Name), "spec.vip", UnknownVIP,
				"no gateway holds %s, so nothing can leave by this route: start the gateways with --vip %s, or correct spec.vip", r.VIP, r.VIP)
		}
	}
	plan.VIPs = SortedAddrs(plan.VIPs)

	sel := newSelection(routes, s.Namespaces, &found)
	claims := sel.claims(s.Pods, newForeign(nodes, plan.VIPs, known))
	own := reservedRanges(nodes, plan.VIPs, known, s.Internal)
	plan.Routes = planRoutes(routes, own, outside(claims, own), &found)
	settle(&plan, sel, claims, nodes)
	sel.overlaps()
	return plan, SortProblems(found)
}

// byPrecedence sorts the older first, then by name.
func byPrecedence(all []Route, found *problems) []*Route {
	routes := make([]*Route, len(all))
	for i := range all {
		routes[i] = &all[i]
	}
	slices.SortFunc(routes, func(a, b *Route) int {
		switch {
		case a.Created.IsZero() != b.Created.IsZero():
			if a.Created.IsZero() {
				return 1
			}
			return -1
		case !a.Created.Equal(b.Created):
			return a.Created.Compare(b.Created)
		}
		if c := strings.Compare(a.Name, b.Name); c != 0 {
			return c
		}
		return strings.Compare(a.spelled(), b.spelled())
	})
	seen := make(map[string]bool, len(routes))
	return slices.DeleteFunc(routes, func(r *Route) bool {
		if seen[r.Name] {
			found.add(routeObject(r.Name), "", Duplicate, "there are two EgressRoutes %s, the older is used: remove one", r.Name)
			return true
		}
		seen[r.Name] = true
		return false
	})
}

// spelled is the route as text, to order two that have one name.
func (r *Route) spelled() string {
	pods := ""
	if r.PodSelector != nil {
		pods = fmt.Sprint(*r.PodSelector)
	}
	return fmt.Sprint(r.Generation, r.VIP, r.NamespaceSelector, pods, r.Destinations, r.FailOpen, r.Exclusive, r.Audit)
}

func nodesOf(all []Node, found *problems) map[string]*Node {
	nodes := make(map[string]*Node, len(all))
	for i := range all {
		n := &all[i]
		if other := nodes[n.Name]; other != nil {
			found.add(nodeObject(n.Name), "", Duplicate, "there are two Nodes %s, only one is used: give each node a name of its own", n.Name)
			if fmt.Sprint(*other) <= fmt.Sprint(*n) {
				continue
			}
		}
		nodes[n.Name] = n
	}
	owner := map[netip.Addr]string{}
	for _, name := range slices.Sorted(maps.Keys(nodes)) {
		for _, addr := range nodes[name].Addrs {
			if other, ok := owner[addr]; ok && other != name {
				found.add(nodeObject(name), "status.addresses", Duplicate, "%s is also an address of Node %s: give each node its own", addr, other)
			}
			owner[addr] = name
		}
	}
	return nodes
}

// end is the node's tunnel end in the family of addr; the zero Addr if it has none.
func (n *Node) end(addr netip.Addr) netip.Addr {
	if n != nil {
		for _, a := range n.Addrs {
			if a.Is4() == addr.Is4() {
				return a
			}
		}
	}
	return netip.Addr{}
}

// planRoutes gives the routes their IDs and keeps their destinations clear of the
// cluster's own addresses.
func planRoutes(routes []*Route, own reserved, pods []claim, found *problems) []PlannedRoute {
	planned := make([]PlannedRoute, 0, len(routes))
	taken := make(map[uint16]bool, len(routes))
	for _, r := range routes {
		p := PlannedRoute{Name: r.Name, ID: routeID(r.Name, taken), Generation: r.Generation, VIP: r.VIP, FailOpen: r.FailOpen, Exclusive: r.Exclusive, Audit: r.Audit}
		for i, d := range r.Destinations {
			if d, ok := own.clear(r, i, d, pods, found); ok {
				p.Destinations = append(p.Destinations, d)
			}
		}
		planned = append(planned, p)
	}
	return planned
}

const lastRouteID = 65535

// routeID comes from the name, so that it does not change with the other routes
// unless two fall on one: then the one of lower precedence gives way. Beyond 65535
// routes IDs are shared: they serve counting only.
func routeID(name string, taken map[uint16]bool) uint16 {
	h := fnv.New32a()
	h.Write([]byte(name))
	id := uint16(h.Sum32()%lastRouteID) + 1
	for len(taken) < lastRouteID && taken[id] {
		id = id%lastRouteID + 1
	}
	taken[id] = true
	return id
}

func comparePrefix(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}
