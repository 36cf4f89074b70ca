// Package snat says, as netfilter rules, what a gateway does with the packets that
// nodes send it: admit only what a route allows, translate the source to the
// VIP, and send replies back. Every replica has all of it in its kernel before it
// ever holds a VIP. It is pure.
package snat

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/sallyport/sallyport/gateway"
	nf "github.com/sallyport/sallyport/netfilter"
	"github.com/sallyport/sallyport/tunnel"
)

// TableName of the gateway's table.
const TableName = "sally_gw"

// Counters of packets that a gateway refuses, by reason.
const (
	RefusedSource      = "refused_source"      // the inner source is no selected pod
	RefusedDestination = "refused_destination" // the destination is of no route of that pod
	RefusedPeer        = "refused_peer"        // the outer source is no node of the cluster
	RefusedInvalid     = "refused_invalid"     // conntrack cannot place it: forwarding would leak the pod's address
	RefusedVIP         = "refused_vip"         // sent to one VIP, the connection belongs to another
	RefusedUnmatched   = "refused_unmatched"   // to the VIP, of no connection: a reset would kill what a takeover saves
	Strayed            = "strayed"             // a reply whose pod has no known way
)

// Refusals are the counters above.
func Refusals() []string {
	return []string{RefusedSource, RefusedDestination, RefusedPeer, RefusedInvalid, RefusedVIP, RefusedUnmatched, Strayed}
}

// routePrefix begins the name of a route's counter, its ID follows.
const routePrefix = "route_"

// Config is what the rules depend on besides the plan.
type Config struct {
	Tunnel tunnel.Config
	// Zone of connection tracking that the gateway keeps its connections in: on
	// the holder's own node one tuple passes netfilter twice.
	Zone uint16
	// NodePorts are source ports not to be used: a reply to one would be taken for
	// a Service's. The zero value bars none.
	NodePorts nf.Ports
}

// RouteMask is the part of a connection's mark, in the gateway's own zone, that
// holds the route's ID. It is for counting only: no decision rests on it.
const RouteMask = 0xffff0000

const (
	classifier = "routes"
	peers      = "peers"
)

// Table is a gateway's rule set for the plan and the VIPs it may hold.
func Table(cfg Config, plan gateway.Plan, ends []tunnel.Remote) (nf.Table, error) {
	vips := make([]netip.Addr, 0, len(ends))
	for _, r := range ends {
		vips = append(vips, r.VIP)
	}
	marks := cfg.Tunnel.Marks
	slots, err := marks.Slots(vips)
	if err != nil {
		return nf.Table{}, err
	}
	mark := func(slot int) nf.Masked { return nf.Masked{Value: marks.Value(slot), Mask: marks.Mask} }
	none, down := mark(0), mark(marks.Down())
	device, port := cfg.Tunnel.Device, cfg.Tunnel.Port
	tcp, udp := nf.Protocols{"tcp"}, nf.Protocols{"udp"}

	routes := nf.CountConnMark{Mask: RouteMask, Names: map[uint32]string{}}
	counters := Refusals()
	for _, r := range plan.Routes {
		routes.Names[uint32(r.ID)<<16] = RouteCounter(r.ID)
		counters = append(counters, RouteCounter(r.ID))
	}

	outer := nf.Chain{Name: "outer", Hook: nf.PreroutingRaw, Early: true}
	inner := nf.Chain{Name: "inner", Hook: nf.PreroutingMangle, Early: true, Rules: []nf.Rule{
		{Match: nf.Match{Mark: &none}, Action: nf.Return{}},
	}}
	input := nf.Chain{Name: "input", Hook: nf.InputFilter}
	source := nf.Chain{Name: "source", Hook: nf.PostroutingNAT, Early: true}
	var meant, admits []nf.Chain
	for _, end := range ends {
		m := mark(slots[end.VIP])
		name := "from-" + end.VIP.String()
		toTunnel := nf.Match{Dst: end.Inside, Protocol: udp, DstPort: port}
		reply := nf.Match{Dst: end.VIP, DstLocal: true, NotIn: device}
		outer.Rules = append(outer.Rules,
			nf.Rule{Match: toTunnel, Action: nf.Goto{Chain: "outer-" + end.VIP.String()}},
			nf.Rule{Match: reply, Action: nf.Goto{Chain: "reply"}},
		)
		meant = append(meant, nf.Chain{Name: "outer-" + end.VIP.String(), Rules: []nf.Rule{
			{Match: nf.Match{NotSrcSet: peers}, Count: RefusedPeer, Action: nf.Drop{}},
			{Action: nf.SetMark(m), Why: "which VIP the inner packet was sent to"},
			{Action: nf.NoTrack{}},
		}})
		inner.Rules = append(inner.Rules, nf.Rule{Match: nf.Match{In: device, Mark: &m}, Action: nf.Goto{Chain: name}})
		admits = append(admits, nf.Chain{Name: name, Rules: []nf.Rule{
			{Action: nf.SetMark(none), Why: "the mark outlives decapsulation on the same host"},
			{Match: nf.Match{State: nf.Invalid}, Count: RefusedInvalid, Action: nf.Drop{}},
			{Match: nf.Match{ConnMark: &m}, Action: routes},
			{Match: nf.Match{ConnMark: &m}, Action: nf.Return{}},
			{Match: nf.Match{NotConnMark: &none}, Count: RefusedVIP, Action: nf.Drop{}},
			{Match: nf.Match{State: nf.Established}, Count: RefusedInvalid, Action: nf.Drop{}},
			{Action: nf.Classify{By: classifier}},
			{Match: nf.Match{ConnMark: &m}, Action: routes},
			{Match: nf.Match{ConnMark: &m}, Action: nf.Return{}},
			{Match: nf.Match{NotConnMark: &none}, Count: RefusedVIP, Action: nf.Drop{}},
			{Match: nf.Match{Unselected: classifier}, Count: RefusedSource, Action: nf.Drop{}},
			{Count: RefusedDestination, Action: nf.Drop{}},
		}})
		input.Rules = append(input.Rules,
			nf.Rule{Match: toTunnel, Action: nf.Return{}},
			nf.Rule{Match: nf.Match{Dst: end.VIP, Protocol: icmpOf(end.VIP)}, Action: nf.Return{}},
			nf.Rule{Match: nf.Match{Dst: end.VIP}, Count: RefusedUnmatched, Action: nf.Drop{}},
		)
		source.Rules = append(source.Rules, translate(cfg, m, end.VIP)...)
	}
	outer.Rules = append(outer.Rules, nf.Rule{Match: nf.Match{In: device, NotMark: &none}, Action: nf.Zone{ID: cfg.Zone}})
	inner.Rules = append(inner.Rules,
		nf.Rule{Match: nf.Match{Mark: &down, Direction: nf.Reply, NotConnMark: &none}, Action: routes},
		nf.Rule{Match: nf.Match{Mark: &down, Direction: nf.Reply, NotConnMark: &none}, Action: nf.Return{}},
		nf.Rule{Match: nf.Match{Mark: &down}, Action: nf.SetMark(none)},
		nf.Rule{Match: nf.Match{In: device}, Action: nf.SetMark(none)},
	)

	return nf.Table{
		Name:     TableName,
		Sets:     []nf.Set{{Name: peers, Addrs: plan.Peers}},
		Counters: counters,
		Classifiers: []nf.Classifier{gateway.Classifier(classifier, plan.Admitted(), func(r gateway.PlannedRoute) uint32 {
			return uint32(r.ID)<<16 | marks.Value(slots[r.VIP])
		})},
		Chains: append([]nf.Chain{
			outer, inner, input,
			{Name: "outer-out", Hook: nf.OutputRaw, Rules: []nf.Rule{
				{Match: nf.Match{Protocol: udp, DstPort: port, DstSet: peers}, Action: nf.NoTrack{}},
			}},
			{Name: "forward", Hook: nf.ForwardMangle, Rules: []nf.Rule{
				{Match: nf.Match{Mark: &down}, Action: nf.Goto{Chain: "reply-out"}},
			}},
			source,
			{Name: "reply", Rules: []nf.Rule{
				{Action: nf.Zone{ID: cfg.Zone}},
				{Action: nf.SetMark(down), Why: "if its connection says so"},
			}},
			{Name: "reply-out", Rules: []nf.Rule{
				{Match: nf.Match{NotOut: device}, Count: Strayed, Action: nf.Drop{}},
				{Match: nf.Match{Protocol: tcp}, Action: nf.ClampMSS{}},
				{Action: nf.SetMark(none), Why: "it has done its work, and costs a look-up per packet"},
			}},
		}, append(meant, admits...)...),
	}, nil
}

// translate keeps a source port that is free and no NodePort, whichever side of
// the NodePorts it lies on; ports below 1024 move up, as any NAT moves them.
func translate(cfg Config, m nf.Masked, vip netip.Addr) []nf.Rule {
	out := nf.Match{ConnMark: &m, NotOut: cfg.Tunnel.Device}
	pools := cfg.pools()
	var rules []nf.Rule
	for _, proto := range []string{"tcp", "udp", "sctp"} {
		match := out
		match.Protocol = nf.Protocols{proto}
		for i, pool := range pools {
			if match.SrcPorts = (nf.Ports{}); i+1 < len(pools) {
				match.SrcPorts = nf.Ports{First: 0, Last: pool.Last}
			}
			rules = append(rules, nf.Rule{Match: match, Action: nf.SNAT{To: vip, Ports: pool}})
		}
	}
	return append(rules, nf.Rule{Match: out, Action: nf.SNAT{To: vip}})
}

// icmpOf is the ICMP of the address's family; IPv6 finds its neighbours by it.
func icmpOf(a netip.Addr) nf.Protocols {
	if a.Is6() {
		return nf.Protocols{"icmpv6"}
	}
	return nf.Protocols{"icmp"}
}

// RouteCounter is the name of a route's counter.
func RouteCounter(id uint16) string { return routePrefix + strconv.Itoa(int(id)) }

// IsRouteCounter tells a route's counter from a refusal's.
func IsRouteCounter(name string) bool { return strings.HasPrefix(name, routePrefix) }
