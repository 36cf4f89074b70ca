// Package steer says, as netfilter rules, what a node's agent does to the packets
// of its selected pods: mark them for the tunnel, keep them from every other way
// out, and keep their source as it is until a gateway translates it. It is pure.
package steer

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/sallyport/sallyport/gateway"
	nf "github.com/sallyport/sallyport/netfilter"
	"github.com/sallyport/sallyport/tunnel"
)

// TableName of the agent's table.
const TableName = "sally_node"

// Counters of packets that the agent drops.
const (
	// Strayed packets were meant for the tunnel but would have gone elsewhere.
	Strayed = "strayed"
	// Stranger packets came out of the tunnel's port from an address that is no node.
	Stranger = "refused_stranger"
	// Unknown packets came, for a route's destination, from a pod of this node that
	// the agent does not know yet, or not any more.
	Unknown = "held_unknown"
	// Unmatched packets came out of the tunnel and belong to no connection of a pod.
	Unmatched = "refused_unmatched"
	// NotSelected packets were for the destination of an exclusive route, from a pod
	// that it does not select.
	NotSelected = "kept_out"
)

// notSelectedOf begins the name of a namespace's part of NotSelected.
const notSelectedOf = NotSelected + "/"

// NotSelectedOf is the counter of a namespace's part of NotSelected.
func NotSelectedOf(namespace string) string { return notSelectedOf + namespace }

// NamespaceOf is the namespace whose part a counter counts; false for other counters.
func NamespaceOf(counter string) (string, bool) { return strings.CutPrefix(counter, notSelectedOf) }

const (
	classifier = "routes"
	peers      = "peers"
	remotes    = "remotes"
)

// Table is the agent's rule set for the plan. Remotes are the tunnel ends of the
// plan's VIPs, each VIP having a slot; h is what the node holds back.
func Table(cfg tunnel.Config, plan gateway.Plan, h gateway.Hold, ends []tunnel.Remote) (nf.Table, error) {
	vips := make([]netip.Addr, 0, len(ends))
	var insides []netip.Addr
	for _, r := range ends {
		vips, insides = append(vips, r.VIP), append(insides, r.Inside)
	}
	slots, err := cfg.Marks.Slots(vips)
	if err != nil {
		return nf.Table{}, err
	}
	mark := func(slot int) nf.Masked { return nf.Masked{Value: cfg.Marks.Value(slot), Mask: cfg.Marks.Mask} }
	none := mark(0)

	sending := nf.Classify{By: classifier, To: map[uint32]string{}}
	classify := nf.Chain{Name: "steer", Hook: nf.PreroutingMangle, Rules: []nf.Rule{
		{Match: nf.Match{NotMark: &none}, Action: nf.Goto{Chain: "marked-in"}},
		{Match: nf.Match{Direction: nf.Reply}, Action: nf.Return{}, Why: "answers to connections made to a pod are not ours"},
		{Match: nf.Match{In: cfg.Device}, Action: nf.Goto{Chain: "from-tunnel"}},
	}}
	tcp, udp := nf.Protocols{"tcp"}, nf.Protocols{"udp"}
	// Whoever sends to a tunnel's port of this host with a mark was looked at by a gateway here.
	atPort := nf.Match{Mark: &none, Protocol: udp, DstPort: cfg.Port, DstLocal: true}
	ways := []nf.Chain{
		// Replies were let through. A gateway's own connections bear marks of VIPs. The rest is
		// of a connection that this node does not know: tracking would take it for one that
		// the partner began, and the pod's answers, which nobody steers, for its replies.
		{Name: "from-tunnel", Rules: []nf.Rule{
			{Match: nf.Match{ConnMark: &none}, Count: Unmatched, Action: nf.Drop{}},
			// What belongs to none at all has no mark to look at: a pod's RST, say, that was tunnelled
			// here since this host has the VIP from elsewhere.
			{Match: nf.Match{State: nf.Invalid}, Count: Unmatched, Action: nf.Drop{}},
		}},
		// By a gateway on this host: of what is tunnelled to it, not of what pods send.
		{Name: "marked-in", Rules: []nf.Rule{
			{Match: nf.Match{In: cfg.Device}, Action: nf.SetMark(none), Why: "the mark outlives decapsulation on the same host"},
		}},
		{Name: "at-port", Rules: []nf.Rule{
			{Match: nf.Match{NotSrcSet: peers}, Count: Stranger, Action: nf.Drop{}},
			{Action: nf.NoTrack{}, Why: "a conntrack entry per inner flow would be a waste"},
		}},
		{Name: "marked-out", Rules: []nf.Rule{
			{Match: nf.Match{NotOut: cfg.Device}, Count: Strayed, Action: nf.Drop{}, Why: "through the tunnel or not at all"},
			{Match: nf.Match{Protocol: tcp}, Action: nf.ClampMSS{}},
			// The kernel keeps the way to a tunnel's end only for packets without a mark
			// (include/net/ip_tunnels.h, ip_tunnel_dst_cache_usable).
			{Action: nf.SetMark(none), Why: "it has done its work, and costs a look-up per packet"},
		}},
	}
	for _, vip := range vips {
		m := mark(slots[vip])
		name := "to-" + vip.String()
		classify.Rules = append(classify.Rules, nf.Rule{Match: nf.Match{ConnMark: &m}, Action: nf.Goto{Chain: name}})
		sending.To[m.Value] = name
		ways = append(ways, nf.Chain{Name: name, Rules: []nf.Rule{
			{Action: nf.SetMark(m)},
			{Action: nf.SetConnMark(m), Why: "a connection keeps the way it was born with"},
		}})
	}
	// A route whose VIP has no way yet must not let its packets out another way.
	noWay := cfg.Marks.Value(cfg.Marks.Down())
	value := func(r gateway.PlannedRoute) uint32 {
		if slot, known := slots[r.VIP]; known {
			return cfg.Marks.Value(slot)
		}
		return noWay
	}
	if slices.ContainsFunc(plan.Routes, func(r gateway.PlannedRoute) bool { return value(r) == noWay }) {
		sending.To[noWay] = "no-way"
		ways = append(ways, nf.Chain{Name: "no-way", Rules: []nf.Rule{{Count: Strayed, Action: nf.Drop{}}}})
	}
	classify.Rules = append(classify.Rules,
		nf.Rule{Match: nf.Match{NotConnMark: &none}, Count: Strayed, Action: nf.Drop{}, Why: "its VIP has no route any more, its source was never translated"},
		nf.Rule{Match: nf.Match{State: nf.Established}, Action: nf.Return{}},
		// New ones, and those that conntrack cannot place or was told to leave alone: no
		// NAT touches these, they would leave with the pod's address.
		nf.Rule{Action: sending},
	)
	back := holdOf(plan, h)
	classify.Rules = append(classify.Rules, back.rules...)
	ways = append(ways, back.chains...)

	return nf.Table{
		Name: TableName,
		Sets: append([]nf.Set{
			{Name: peers, Addrs: plan.Peers},
			{Name: remotes, Addrs: gateway.SortedAddrs(slices.Concat(insides, plan.Peers))},
		}, back.sets...),
		Classifiers: append([]nf.Classifier{gateway.Classifier(classifier, plan, value)}, back.classifiers...),
		Counters:    []string{Strayed, Stranger, Unknown, Unmatched, NotSelected},
		Chains: append([]nf.Chain{
			{Name: "tunnel-in", Hook: nf.PreroutingRaw, Rules: []nf.Rule{
				{Match: atPort, Action: nf.Goto{Chain: "at-port"}},
			}},
			{Name: "tunnel-out", Hook: nf.OutputRaw, Rules: []nf.Rule{
				{Match: nf.Match{Protocol: udp, DstPort: cfg.Port, DstSet: remotes}, Action: nf.NoTrack{}},
			}},
			classify,
			{Name: "forward", Hook: nf.ForwardMangle, Rules: []nf.Rule{
				{Match: nf.Match{Protocol: udp, DstPort: cfg.Port, DstSet: remotes, NotSrcSet: peers}, Count: Stranger, Action: nf.Drop{},
					Why: "a pod's, which would pass for its node's once it is masqueraded"},
				{Match: nf.Match{NotMark: &none}, Action: nf.Goto{Chain: "marked-out"}},
			}},
			{Name: "keep", Hook: nf.PostroutingNAT, Rules: []nf.Rule{
				{Match: nf.Match{Out: cfg.Device}, Action: nf.KeepSource{}, Why: "before the CNI masquerades"},
			}},
		}, ways...),
	}, nil
}
