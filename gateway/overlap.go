package gateway

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Overlaps are the Problems of routes that match the same packets and that one pod
// could have, were it to name both: for checking routes without the pods.
func Overlaps(all []Route) []Problem {
	var found problems
	routes := byPrecedence(all, &problems{})
	o := newOverlaps(routes)
	for j := range routes {
		for i := range j {
			if !exclude(routes[i].NamespaceSelector, routes[j].NamespaceSelector) {
				o.compare(i, j)
			}
		}
	}
	o.report(&found)
	return SortProblems(found)
}

// overlaps reports the routes that match the same packets of one pod.
func (s *selection) overlaps() {
	o := newOverlaps(s.routes)
	for _, set := range s.sets {
		for n, j := range set.all {
			for _, i := range set.all[:n] {
				o.compare(i, j)
			}
		}
	}
	o.report(s.found)
}

type overlaps struct {
	routes   []*Route
	hull     []netip.Prefix // of each route: a range around all its destinations
	compared map[[2]int]bool
	losers   map[[2]int][]winner // route and destination → those that win over it
}

type winner struct {
	route, destination int
	why                string
}

func newOverlaps(routes []*Route) *overlaps {
	o := &overlaps{routes: routes, hull: make([]netip.Prefix, len(routes)), compared: map[[2]int]bool{}, losers: map[[2]int][]winner{}}
	for i, r := range routes {
		for _, d := range r.Destinations {
			if !o.hull[i].IsValid() {
				o.hull[i] = d.CIDR
			}
			for !covers(o.hull[i], d.CIDR) && o.hull[i].Bits() > 0 {
				o.hull[i] = netip.PrefixFrom(o.hull[i].Addr(), o.hull[i].Bits()-1).Masked()
			}
		}
	}
	return o
}

// compare two routes, the first of which takes precedence.
func (o *overlaps) compare(first, second int) {
	if !o.hull[first].Overlaps(o.hull[second]) || o.compared[[2]int{first, second}] {
		return
	}
	o.compared[[2]int{first, second}] = true
	for i, a := range o.routes[first].Destinations {
		for j, b := range o.routes[second].Destinations {
			if !a.CIDR.Overlaps(b.CIDR) || !portsMeet(a.Ports, b.Ports) {
				continue
			}
			smaller := a.CIDR
			if b.CIDR.Bits() > smaller.Bits() {
				smaller = b.CIDR
			}
			if exhausted(smaller, tidy(slices.Concat(a.Except, b.Except))) {
				continue
			}
			firstWins, why := precedes(o.routes[first], o.routes[second], a, b)
			if firstWins {
				o.losers[[2]int{second, j}] = append(o.losers[[2]int{second, j}], winner{first, i, why})
			} else {
				o.losers[[2]int{first, i}] = append(o.losers[[2]int{first, i}], winner{second, j, why})
			}
		}
	}
}

// precedes says whether a, of the route that takes precedence, wins over b, and why.
func precedes(first, second *Route, a, b Destination) (bool, string) {
	switch {
	case a.CIDR.Bits() != b.CIDR.Bits():
		return a.CIDR.Bits() > b.CIDR.Bits(), "the longer prefix"
	case (len(a.Ports) > 0) != (len(b.Ports) > 0):
		return len(a.Ports) > 0, "it names ports"
	case !first.Created.Equal(second.Created):
		return true, "the older route"
	}
	return true, "the first by name"
}

func portsMeet(a, b []Port) bool {
	if len(a) == 0 || len(b) == 0 {
		return true
	}
	for _, p := range a {
		for _, q := range b {
			if p.Protocol == q.Protocol && p.First <= q.Last && q.First <= p.Last {
				return true
			}
		}
	}
	return false
}

// named bounds how many winners one Problem names: a thousand routes for
// everything are half a million pairs.
const named = 3

func (o *overlaps) report(found *problems) {
	for loser, winners := range o.losers {
		r := o.routes[loser[0]]
		slices.SortFunc(winners, func(a, b winner) int {
			if a.route != b.route {
				return a.route - b.route
			}
			return a.destination - b.destination
		})
		var parts []string
		for _, w := range winners[:min(named, len(winners))] {
			by := o.routes[w.route]
			parts = append(parts, fmt.Sprintf("%s of EgressRoute %s (%s)", by.Destinations[w.destination].CIDR, by.Name, w.why))
		}
		if more := len(winners) - named; more > 0 {
			parts = append(parts, fmt.Sprintf("%d more", more))
		}
		cidr := r.Destinations[loser[1]].CIDR
		found.add(routeObject(r.Name), fmt.Sprintf("spec.destinations[%d].cidr", loser[1]), Overlap,
			"%s matches packets that %s matches too and wins for pods with both routes: add the winner's range to except, or narrow one of them", cidr, strings.Join(parts, ", "))
	}
}
