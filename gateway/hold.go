package gateway

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/sallyport/sallyport/netfilter"
)

// Hold is whose packets to the routes' destinations a node holds back: what comes
// from the ranges of its pods and from no pod that is known.
type Hold struct {
	Ranges []netip.Prefix // sorted, none inside another
	Known  []netip.Addr   // sorted
	// Told are the namespaces of the node's pods whose packets are counted apart where
	// they are dropped, at most ToldMost, by name.
	Told []Resident
}

// Resident is a namespace with its pods on one node.
type Resident struct {
	Namespace string
	Addrs     []netip.Addr // sorted
}

// ToldMost bounds what a packet meets that is dropped anyway, and what is told of it.
const ToldMost = 20

// NewHold is that of one node; pods are those on it. Ranges that are given replace
// those of the Node object. A pod outside every range is a Problem: what another pod
// sends from there before it is known is not held back.
func NewHold(s Snapshot, node string, pods []Pod, ranges []netip.Prefix) (Hold, []Problem) {
	var found problems
	if len(ranges) == 0 {
		for _, n := range s.Nodes {
			if n.Name == node {
				ranges = n.PodCIDRs
			}
		}
	}
	var h Hold
	for _, r := range ranges {
		h.Ranges = append(h.Ranges, r.Masked())
	}
	h.Ranges = tidy(h.Ranges)
	h.Known = SortedAddrs(AddrsOf(pods))
	h.Told = residents(pods)
	if slices.ContainsFunc(s.Routes, func(r Route) bool { return !r.FailOpen }) {
		h.report(node, &found)
	}
	return h, found
}

// residents are the namespaces with the most addresses.
func residents(pods []Pod) []Resident {
	of := map[string][]netip.Addr{}
	for len(pods) > 0 { // those of a namespace are often side by side
		n := 1
		for n < len(pods) && pods[n].Namespace == pods[0].Namespace {
			n++
		}
		if addrs := AddrsOf(pods[:n]); len(addrs) > 0 {
			of[pods[0].Namespace] = append(of[pods[0].Namespace], addrs...)
		}
		pods = pods[n:]
	}
	all := make([]Resident, 0, len(of))
	for namespace, addrs := range of {
		all = append(all, Resident{namespace, SortedAddrs(addrs)})
	}
	slices.SortFunc(all, func(a, b Resident) int {
		return cmp.Or(cmp.Compare(len(b.Addrs), len(a.Addrs)), strings.Compare(a.Namespace, b.Namespace))
	})
	all = all[:min(ToldMost, len(all))]
	slices.SortFunc(all, func(a, b Resident) int { return strings.Compare(a.Namespace, b.Namespace) })
	return all
}

func (h Hold) report(node string, found *problems) {
	outside := slices.DeleteFunc(slices.Clone(h.Known), func(a netip.Addr) bool {
		return slices.ContainsFunc(h.Ranges, func(r netip.Prefix) bool { return r.Contains(a) })
	})
	switch {
	case len(h.Ranges) == 0 && len(h.Known) == 0:
	case len(h.Ranges) == 0:
		found.add(nodeObject(node), "spec.podCIDRs", Misconfigured,
			"the node has no pod range, so the first packets of new pods cannot be held back until the pods are known: give the agent --pod-cidr, or the Node its podCIDRs")
	case len(outside) > 0:
		var ranges []string
		for _, r := range h.Ranges {
			ranges = append(ranges, r.String())
		}
		found.add(nodeObject(node), "spec.podCIDRs", Misconfigured,
			"%s lies outside the node's pod range %s, so the first packets of new pods there cannot be held back: give the agent --pod-cidr with all ranges that pods of this node have",
			some(outside), strings.Join(ranges, ","))
	}
}

// some of the pods' addresses, for a message.
func some(addrs []netip.Addr) string {
	if len(addrs) == 1 {
		return fmt.Sprintf("pod address %s", addrs[0])
	}
	return fmt.Sprintf("pod address %s (with %d others)", addrs[0], len(addrs)-1)
}

// Held finds the packets that must wait until their pod is known: any to a
// destination of a route that fails closed.
func Held(name string, plan Plan, value uint32) netfilter.Classifier {
	return everybody(name, plan, value, func(r PlannedRoute) bool { return !r.FailOpen })
}

// Exclusive finds the packets that only a route of the pod's own may take.
func Exclusive(name string, plan Plan, value uint32) netfilter.Classifier {
	return everybody(name, plan, value, func(r PlannedRoute) bool { return r.Exclusive })
}

// Takes tells whether any route takes packets to the destination.
func (p Plan) Takes(dst netip.Addr, protocol Protocol, port uint16) bool {
	return slices.ContainsFunc(p.Routes, func(r PlannedRoute) bool {
		return slices.ContainsFunc(r.Destinations, func(d Destination) bool {
			return d.CIDR.Contains(dst) &&
				!slices.ContainsFunc(d.Except, func(e netip.Prefix) bool { return e.Contains(dst) }) &&
				(len(d.Ports) == 0 || slices.ContainsFunc(d.Ports, func(p Port) bool {
					return p.Protocol == protocol && p.First <= port && port <= p.Last
				}))
		})
	})
}

func everybody(name string, plan Plan, value uint32, applies func(PlannedRoute) bool) netfilter.Classifier {
	c := netfilter.Classifier{Name: name}
	for _, r := range plan.Routes {
		if applies(r) {
			c.Others = append(c.Others, targetsOf(r, value)...)
		}
	}
	return c
}
