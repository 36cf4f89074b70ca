package gateway

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/sallyport/sallyport/netfilter"
)

// Packet is a first packet of a connection, as far as routes look at it.
type Packet struct {
	Dst      netip.Addr
	Protocol Protocol
	Port     uint16
}

func (p Packet) String() string {
	return fmt.Sprintf("%s %s", netip.AddrPortFrom(p.Dst, p.Port), p.Protocol)
}

func (p Protocol) String() string {
	if name, ok := map[Protocol]string{TCP: "tcp", UDP: "udp", SCTP: "sctp"}[p]; ok {
		return name
	}
	return fmt.Sprintf("protocol %d", uint8(p))
}

// Explanation is how a view decides about one packet of one pod.
type Explanation struct {
	Found       bool         `json:"found"` // the pod is in the view
	Node        string       `json:"node,omitempty"`
	Addrs       []netip.Addr `json:"addrs,omitempty"`
	HostNetwork bool         `json:"hostNetwork,omitempty"`
	Ended       bool         `json:"ended,omitempty"`
	Disputed    bool         `json:"disputed,omitempty"` // see PlannedPod
	// Route takes the packet, "" when none does; Addr is the pod's address that it is of.
	Route string     `json:"route,omitempty"`
	VIP   netip.Addr `json:"vip,omitzero"`
	Addr  netip.Addr `json:"addr,omitzero"`
	// Chances are the routes that the pod names or that choose it, and those that would
	// take the packet, by precedence, then the names of routes that there are not.
	Chances []Chance `json:"chances,omitempty"`
}

// Chance is what one route makes of the packet.
type Chance struct {
	Route string `json:"route"`
	// By is what selects the pod: its annotation, its namespace's, or podSelector; "" nothing.
	By      string `json:"by,omitempty"`
	Exists  bool   `json:"exists"`
	Admits  bool   `json:"admits"`            // the pod's namespace
	Refuses string `json:"refuses,omitempty"` // why the destination is not the route's, "" where it is
}

// What a Chance comes by.
const (
	ByAnnotation = "the pod's annotation"
	ByNamespace  = "its namespace's annotation"
	BySelector   = "podSelector"
)

// Explain says which route takes the packet of the pod, and why each other does not.
func Explain(s Snapshot, namespace, name string, packet Packet) Explanation {
	i := slices.IndexFunc(s.Pods, func(p Pod) bool { return p.Namespace == namespace && p.Name == name })
	if i < 0 {
		return Explanation{}
	}
	pod := &s.Pods[i]
	out := Explanation{
		Found: true, Node: pod.Node, Addrs: pod.Addrs, HostNetwork: pod.HostNetwork, Ended: pod.Ended,
		Chances: chances(s, pod, packet),
	}
	plan, _ := Build(s, nil)
	for _, p := range plan.Pods {
		if p.Namespace != namespace || p.Name != name || p.Addr.Is4() != packet.Dst.Is4() {
			continue
		}
		out.Addr, out.Disputed = p.Addr, p.Disputed
		if r, taken := plan.RouteOf(p, packet); taken {
			out.Route, out.VIP = r.Name, r.VIP
		}
	}
	return out
}

// RouteOf is the route that takes the pod's packet, as the kernel's look-up decides.
func (p Plan) RouteOf(pod PlannedPod, packet Packet) (PlannedRoute, bool) {
	var targets []netfilter.Target
	for _, r := range pod.Routes {
		targets = append(targets, targetsOf(p.Routes[r], uint32(r)+1)...)
	}
	for _, b := range netfilter.Flatten(targets) {
		if b.First.Compare(packet.Dst) <= 0 && packet.Dst.Compare(b.Last) <= 0 &&
			b.FirstProtocol <= uint8(packet.Protocol) && uint8(packet.Protocol) <= b.LastProtocol &&
			b.Ports.First <= packet.Port && packet.Port <= b.Ports.Last {
			return p.Routes[b.Value-1], true
		}
	}
	return PlannedRoute{}, false
}

func chances(s Snapshot, pod *Pod, packet Packet) []Chance {
	var found problems
	routes := byPrecedence(s.Routes, &found)
	sel := newSelection(routes, s.Namespaces, &found)
	nodes := nodesOf(s.Nodes, &found)
	own := reservedRanges(nodes, nil, vipsOf(routes), s.Internal)
	ns := sel.namespace(pod.Namespace)

	by, names := "", []string(nil)
	switch {
	case pod.Annotated:
		by, names = ByAnnotation, sel.named[sel.annotation(pod.Annotation)]
	case ns.Annotated:
		by, names = ByNamespace, sel.named[sel.annotation(ns.Annotation)]
	}
	chosen := sel.chosen[sel.choice(pod.Labels)]
	var out []Chance
	for i, r := range routes {
		c := Chance{Route: r.Name, Exists: true, Admits: sel.admitted(ns, i), Refuses: refusal(r, own, packet)}
		switch {
		case slices.Contains(names, r.Name):
			c.By = by
		case slices.Contains(chosen, i):
			c.By = BySelector
		}
		if c.By != "" || c.Refuses == "" {
			out = append(out, c)
		}
	}
	for _, name := range names {
		if _, exists := sel.byName[name]; !exists {
			out = append(out, Chance{Route: name, By: by})
		}
	}
	return out
}

func vipsOf(routes []*Route) []netip.Addr {
	var vips []netip.Addr
	for _, r := range routes {
		vips = append(vips, r.VIP)
	}
	return vips
}

// refusal is why the route does not take the packet, of all its destinations the one
// that comes nearest; "" when it does.
func refusal(r *Route, own reserved, packet Packet) string {
	if in, reserved := own.around(packet.Dst); reserved {
		return fmt.Sprintf("%s lies in %s (%s), which no route may take", packet.Dst, in.what, in.Prefix)
	}
	var ranges, ports []string
	except := ""
	for _, d := range r.Destinations {
		if !d.CIDR.Contains(packet.Dst) {
			ranges = append(ranges, d.CIDR.String())
			continue
		}
		if i := slices.IndexFunc(d.Except, func(e netip.Prefix) bool { return e.Contains(packet.Dst) }); i >= 0 {
			except = fmt.Sprintf("%s is in except of %s, by %s", packet.Dst, d.CIDR, d.Except[i])
			continue
		}
		if len(d.Ports) == 0 {
			return ""
		}
		for _, p := range d.Ports {
			if p.Protocol == packet.Protocol && p.First <= packet.Port && packet.Port <= p.Last {
				return ""
			}
			ports = append(ports, p.String())
		}
	}
	switch {
	case len(ports) > 0:
		return fmt.Sprintf("port %d/%s is not among its ports %s", packet.Port, packet.Protocol, strings.Join(ports, ", "))
	case except != "":
		return except
	case len(ranges) > 0:
		return fmt.Sprintf("%s is in none of its destinations %s", packet.Dst, strings.Join(ranges, ", "))
	}
	return "it has no destinations"
}

func (p Port) String() string {
	if p.First == p.Last {
		return fmt.Sprintf("%d/%s", p.First, p.Protocol)
	}
	return fmt.Sprintf("%d-%d/%s", p.First, p.Last, p.Protocol)
}
