package gateway

import (
	"net/netip"
	"slices"
)

// OwnNode is what keeps others from taking the tunnel packets of the program on a host
// that calls itself node and sends from addr; none where the view has it so. Peers are
// those of the plan.
func OwnNode(program, node string, addr netip.Addr, nodes []Node, peers []netip.Addr) []Problem {
	var found problems
	with := func(n Node) bool { return slices.Contains(n.Addrs, addr) }
	own := func(n Node) bool { return n.Name == node }
	switch {
	case slices.ContainsFunc(nodes, func(n Node) bool { return own(n) && with(n) }):
	case slices.Contains(peers, addr):
		other := nodes[slices.IndexFunc(nodes, with)].Name
		found.add(nodeObject(node), "--node-name", Misconfigured, "%s, the --node-ip of this %s, is an address of Node %s: give it --node-name %s, or --node-ip of Node %s",
			addr, program, other, other, node)
	case slices.ContainsFunc(nodes, own):
		found.add(nodeObject(node), "status.addresses", UnknownNode, "%s, the --node-ip of this %s, is not among them, so other hosts refuse what it sends through the tunnel: "+
			"add it as InternalIP, or correct --node-ip", addr, program)
	default:
		found.add(nodeObject(node), "", UnknownNode, "there is no such Node, and none has %s, the --node-ip of this %s, so other hosts refuse what it sends through the tunnel: "+
			"add the Node with that InternalIP, or correct --node-name", addr, program)
	}
	return found
}
