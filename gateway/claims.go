package gateway

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
)

// claim is one pod's claim to one address.
type claim struct {
	addr netip.Addr
	pod  *Pod
	set  *routeSet
	nth  int32 // of the pod, in the Snapshot
}

// routes that apply to the address: those whose VIP is of its family.
func (c claim) routes() []int {
	if c.addr.Is4() {
		return c.set.v4
	}
	return c.set.v6
}

// foreign are addresses that are never a pod's own, with whose they are.
type foreign map[netip.Addr]string

func newForeign(nodes map[string]*Node, vips, known []netip.Addr) foreign {
	f := foreign{}
	for _, v := range slices.Concat(vips, known) {
		f[v] = "a VIP"
	}
	for _, n := range nodes {
		for _, a := range n.Addrs {
			// Two nodes with one address are named elsewhere; here the lower name
			// stands for both, whatever the order of the map.
			if what := nodeObject(n.Name); f[a] == "" || f[a] == "a VIP" || what < f[a] {
				f[a] = what
			}
		}
	}
	return f
}

func (f foreign) of(a netip.Addr) string {
	switch {
	case a.IsLoopback() || a.IsUnspecified() || a.IsMulticast() || a.IsLinkLocalUnicast():
		return "not an address of a pod network"
	case f[a] == "":
		return ""
	case f[a] == "a VIP":
		return "a VIP"
	}
	return "an address of " + f[a]
}

// claims are those of the pods that run on the pod network, sorted by address and
// then by pod.
func (s *selection) claims(pods []Pod, others foreign) []claim {
	claims := make([]claim, 0, len(pods))
	for i := range pods {
		p := &pods[i]
		if p.Ended {
			continue
		}
		c := s.class(p)
		for _, w := range c.wrong {
			s.report(podObject(p), p.Namespace, w)
		}
		if p.HostNetwork {
			if len(c.all) > 0 {
				s.found.add(podObject(p), "spec.hostNetwork", HostNetwork,
					"the pod shares its node's address, so %s cannot take its traffic: remove hostNetwork, or take the route from the pod", s.name(c.all))
			}
			continue
		}
		for _, addr := range p.Addrs {
			if whose := others.of(addr); whose != "" {
				if len(c.all) > 0 {
					s.found.add(podObject(p), "status.podIPs", HostNetwork,
						"%s is %s, so %s cannot take the pod's traffic: set spec.hostNetwork if the pod is on its node's network, or correct the address", addr, whose, s.name(c.all))
				}
				continue
			}
			claims = append(claims, claim{addr, p, c.routeSet, int32(i)})
		}
	}
	slices.SortFunc(claims, func(a, b claim) int {
		if c := a.addr.Compare(b.addr); c != 0 {
			return c
		}
		return comparePods(a.pod, b.pod)
	})
	return claims
}

// name of the first route of a set, with the number of the others.
func (s *selection) name(set []int) string {
	name := routeObject(s.routes[set[0]].Name)
	if len(set) > 1 {
		name += " (and others)"
	}
	return name
}

func comparePods(a, b *Pod) int {
	return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name), strings.Compare(a.UID, b.UID))
}

// settle gives each address to the pod that claims it.
func settle(plan *Plan, s *selection, claims []claim, nodes map[string]*Node) {
	selected := 0
	for _, c := range claims {
		if len(c.routes()) > 0 {
			selected++
		}
	}
	plan.Pods = make([]PlannedPod, 0, selected)
	plan.Members = make([]Member, 0, len(claims))
	type podFamily struct {
		nth int32
		v4  bool
	}
	counted := map[podFamily]bool{} // only pods with more than one address
	for len(claims) > 0 {
		n := 1
		for n < len(claims) && claims[n].addr == claims[0].addr {
			n++
		}
		rivals := claims[:n]
		claims = claims[n:]
		if n > 1 {
			rivals = standing(rivals)
		}
		first, disputed := rivals[0], false
		routes := first.routes()
		if len(rivals) > 1 {
			first, routes, disputed = s.dispute(rivals)
		}
		end := nodes[first.pod.Node].end(first.addr)
		if end.IsValid() && !disputed {
			plan.Members = append(plan.Members, Member{Addr: first.addr, Node: end})
		}
		if len(routes) == 0 {
			continue
		}
		plan.Pods = append(plan.Pods, PlannedPod{
			Addr: first.addr, Namespace: first.pod.Namespace, Name: first.pod.Name, UID: first.pod.UID,
			Node: first.pod.Node, Routes: routes, Disputed: disputed,
		})
		for _, c := range rivals {
			if len(c.pod.Addrs) > 1 {
				key := podFamily{c.nth, c.addr.Is4()}
				if counted[key] {
					continue
				}
				counted[key] = true
			}
			for _, r := range c.routes() {
				plan.Routes[r].Pods++
			}
		}
		if !end.IsValid() {
			s.lost(first, nodes)
		}
	}
}

// standing drops the claims of pods that are being deleted where another has the
// address already, and claims that one pod makes twice.
func standing(rivals []claim) []claim {
	rivals = slices.CompactFunc(slices.Clone(rivals), func(a, b claim) bool { return comparePods(a.pod, b.pod) == 0 })
	live := func(c claim) bool { return !c.pod.Terminating }
	if slices.ContainsFunc(rivals, live) {
		rivals = slices.DeleteFunc(rivals, func(c claim) bool { return !live(c) })
	}
	return rivals
}

// dispute settles an address that several live pods have. With the same routes on
// the same node it makes no difference whose it is.
func (s *selection) dispute(rivals []claim) (first claim, routes []int, disputed bool) {
	first = rivals[0]
	selected := slices.IndexFunc(rivals, func(c claim) bool { return len(c.routes()) > 0 })
	if selected >= 0 {
		first = rivals[selected]
	}
	for _, c := range rivals {
		disputed = disputed || c.set != first.set || c.pod.Node != first.pod.Node
		routes = append(routes, c.routes()...)
	}
	slices.Sort(routes)
	routes = slices.Compact(routes)
	if len(routes) > 0 {
		consequence := "both have the same routes and node, so nothing else changes"
		if disputed {
			consequence = "what their routes take is dropped until one of them is gone"
		}
		for _, c := range rivals {
			if comparePods(c.pod, first.pod) != 0 {
				s.found.add(podObject(first.pod), "status.podIPs", Duplicate, "%s is also the address of %s; %s: delete the pod that no longer runs", c.addr, podObject(c.pod), consequence)
			}
		}
	}
	return first, routes, disputed
}

// lost reports a selected pod that replies cannot be sent to.
func (s *selection) lost(c claim, nodes map[string]*Node) {
	const cure = "replies to the pod cannot be sent"
	switch n := nodes[c.pod.Node]; {
	case c.pod.Node == "":
		s.found.add(podObject(c.pod), "spec.nodeName", UnknownNode, "%s has an address but no node, %s: set spec.nodeName", podObject(c.pod), cure)
	case n == nil:
		s.found.add(podObject(c.pod), "spec.nodeName", UnknownNode, "there is no Node %s, %s: add the Node, or correct spec.nodeName", c.pod.Node, cure)
	default:
		s.found.add(podObject(c.pod), "spec.nodeName", UnknownNode, "Node %s has no address of the family of %s, %s: add an InternalIP to its status.addresses", c.pod.Node, c.addr, cure)
	}
}
