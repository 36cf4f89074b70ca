package trace

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/sallyport/sallyport/netfilter"
)

const mended = "the program puts it back within 30 s; where it does not stay, look for who removes it"

// node is what the pod's node does: sets, rules, mark, table, tunnel.
func (w *walk) node() bool {
	a := w.Agent
	w.at("agent", a.Node).applied(a.Common)
	w.filter(a.Common, "sets", "rules", fmt.Sprintf("%s to %s is found in the kernel, and gets mark %#x", a.View.Addr, w.Question.Packet, a.Mark),
		"every rule of ours is there")
	w.lacking("ip rule", a.Tunnel.Rules, fmt.Sprintf("mark %#x has its rule", a.Mark))
	// A device that is down has no routes either.
	w.lacking("tunnel", slices.Concat(a.Tunnel.Device, a.Settings), fmt.Sprintf("device %s is up", a.Device))
	w.lacking("table", a.Tunnel.Routes, fmt.Sprintf("the way into the tunnel to %s is there", a.Remote))
	w.at("route", a.Node)
	switch {
	case a.NoWay != "":
		w.add(Wrong, a.NoWay, fmt.Sprintf("device %s to %s", a.Device, a.Remote), "see the steps above")
	case a.Way.Device != a.Device || a.Way.Remote != a.Remote:
		w.add(Wrong, fmt.Sprintf("the kernel sends mark %#x by table %d to device %s, tunnel end %s", a.Mark, a.Way.Table, a.Way.Device, end(a.Way.Remote)),
			fmt.Sprintf("device %s to %s", a.Device, a.Remote), "see the steps above; else an ip rule of another program goes first: ip rule shows it")
	default:
		w.ok("the kernel sends mark %#x by table %d to device %s, tunnel end %s", a.Mark, a.Way.Table, a.Way.Device, a.Way.Remote)
	}
	w.refused(a.Common)
	w.unread(a.Common)
	return true
}

// applied is whether the program could bring what it wants to the kernel.
func (w *walk) applied(c Common) {
	if c.Apply != "" {
		w.add(Wrong, "it could not apply the last view: "+c.Apply, "the view in the kernel", "see to what the error says; it is tried again")
		return
	}
	w.ok("the last view is in the kernel")
}

// filter is the packet filter in two steps.
func (w *walk) filter(c Common, sets, rules, foundSets, foundRules string) {
	var inSets, inRules []string
	for _, p := range c.Filter {
		if p.Set {
			inSets = append(inSets, p.String())
		} else {
			inRules = append(inRules, p.String())
		}
	}
	w.lacking(sets, inSets, foundSets)
	w.lacking(rules, inRules, foundRules)
}

// lacking is one step: what the kernel has not that it should.
func (w *walk) lacking(name string, missing []string, ok string) {
	w.name = name
	if len(missing) == 0 {
		w.ok("%s", ok)
		return
	}
	w.add(Wrong, some(missing), ok, mended)
}

// some of many, for one line.
func some(all []string) string {
	const most = 3
	if len(all) > most {
		return fmt.Sprintf("%s; and %d more", strings.Join(all[:most], "; "), len(all)-most)
	}
	return strings.Join(all, "; ")
}

// refused is what the program sends into the tunnel, at the other end.
func (w *walk) refused(c Common) {
	if len(c.Refused) > 0 {
		w.add(Wrong, some(c.Refused), "a Node with the address of --node-ip", "correct the Node, or the program's --node-name and --node-ip")
	}
}

func (w *walk) unread(c Common) {
	if len(c.Errors) > 0 {
		w.at("kernel", c.Node).add(Unknown, some(c.Errors), "an answer of the kernel", "see the program's log")
	}
}

// gateways is who holds the VIP, and what the holder does.
func (w *walk) gateways() {
	vip := w.Agent.View.VIP
	var holders, known []Gateway
	for _, g := range w.Gateways {
		if g.Known {
			known = append(known, g)
		}
		if g.Held {
			holders = append(holders, g)
		}
	}
	for _, s := range w.Silent {
		if s.Program == "gateway" {
			w.at("gateway", s.Where).add(Note, "it does not answer: "+s.Why, "every gateway answers", "start it, or see its log")
		}
	}
	w.at("holder", "gateways")
	switch {
	case len(w.Gateways) == 0:
		w.add(Unknown, "no gateway answered", "one that holds "+vip.String(), "start them, or give their addresses with --http")
		return
	case len(known) == 0:
		w.add(Wrong, "no gateway is configured to hold "+vip.String(), "one that holds it", fmt.Sprintf("start the gateways with --vip %s, or correct the route's spec.vip", vip))
		return
	case len(holders) == 0:
		if holder := w.elsewhere(known); holder != "" {
			w.add(Unknown, fmt.Sprintf("%s holds %s by what %s says, and gave no answer itself", holder, vip, known[0].Name), "an answer of who holds it",
				"see why it is silent, or ask its host, by --http too; what follows cannot be told without it")
			return
		}
		w.add(Wrong, "nobody holds "+vip.String()+": "+w.why(known), "one holder", "see to what it says: more than half of the gateways must hear each other, and one be able to take it")
		return
	case len(holders) > 1:
		w.add(Wrong, fmt.Sprintf("%s and %s hold %s", holders[0].Name, holders[1].Name, vip), "one holder", "ask again: a hand-over takes a moment; else report it as a bug")
		return
	}
	h := holders[0]
	w.ok("%s holds %s; %d gateways hear each other, %d must", h.Name, vip, len(h.Voters), h.Quorum)
	w.large()
	w.holder(h, vip)
}

// elsewhere is who holds by what all say that answered, and did not answer itself: it is silent,
// or was not asked, as on a host whose gateway alone is asked.
func (w *walk) elsewhere(known []Gateway) string {
	holder := known[0].Holder
	for _, g := range w.Gateways {
		if g.Name == holder || g.Known && g.Holder != holder {
			return ""
		}
	}
	return holder
}

// large is whether the pod's large packets get to the holder, through what lies between.
func (w *walk) large() {
	p := w.Agent.Path
	if p == nil {
		return
	}
	w.at("mtu", w.Agent.Node)
	switch found, cure := p.Narrow(); {
	case found != "":
		w.add(Wrong, found, fmt.Sprintf("%d bytes pass to %s and back", p.Size, p.To), cure)
	case p.Error != "":
		w.add(Unknown, "the way to "+p.To.String()+" could not be probed: "+p.Error, "an answer to pings", "see the agent's log")
	case p.Largest == 0:
		w.add(Note, "no ping of any size comes back from "+p.To.String(), fmt.Sprintf("%d bytes pass", p.Size), "see the network between, and what drops pings on the way: the MTU is not known")
	default:
		w.ok("packets of %d bytes get to %s and back", p.Size, p.To)
	}
}

// why nobody holds, in the words of who hears the most.
func (w *walk) why(known []Gateway) string {
	best := slices.MaxFunc(known, func(a, b Gateway) int { return len(a.Voters) - len(b.Voters) })
	for _, g := range known {
		if g.Holder != "" {
			return fmt.Sprintf("%s believes that %s does, which did not say so", g.Name, g.Holder)
		}
	}
	switch {
	case len(best.Voters) < best.Quorum:
		return fmt.Sprintf("%s hears %d of the %d gateways that must agree", best.Name, len(best.Voters), best.Quorum)
	case best.Barred != "":
		return fmt.Sprintf("%s says: %s", best.Name, best.Barred)
	}
	return best.Name + " hears enough gateways: they are electing one"
}

func (w *walk) holder(h Gateway, vip netip.Addr) {
	a := w.Agent
	w.at("gateway", h.Node).applied(h.Common)
	w.at("admission", h.Node)
	if h.View.Disputed {
		w.add(Wrong, fmt.Sprintf("another pod has address %s, too", a.View.Addr), "an address that is one pod's", "delete the pod that no longer runs")
	} else if h.View.Route == "" || h.View.VIP != vip {
		w.add(Wrong, "the gateway's own view admits the packet by "+or(h.View.Route, "no route"), "by "+a.View.Route, "see the gateway's log for why its view differs from the agent's")
	}
	isSNAT := func(p netfilter.Pending) bool {
		return strings.Contains(p.Text, "snat") || strings.Contains(p.Text, "SNAT")
	}
	rest, snat := h.Common, h.Common
	rest.Filter = slices.DeleteFunc(slices.Clone(h.Filter), isSNAT)
	snat.Filter = slices.DeleteFunc(slices.Clone(h.Filter), func(p netfilter.Pending) bool { return !isSNAT(p) })
	w.filter(rest, "admission", "gateway's rules", fmt.Sprintf("%s to %s from node %s is admitted", a.View.Addr, w.Question.Packet, a.Node), "every rule of ours is there")
	var missing []string
	for _, p := range snat.Filter {
		missing = append(missing, p.String())
	}
	w.lacking("SNAT", missing, fmt.Sprintf("the source is translated to %s", vip))
	w.name = "address"
	for _, addr := range slices.Compact([]netip.Addr{vip, h.Inside}) {
		switch {
		case !addr.IsValid():
		case !slices.Contains(h.Has, addr):
			w.add(Wrong, fmt.Sprintf("no interface of the holder has %s", addr), "the address on it", "see the gateway's log for why it was not claimed, or who took it away")
		case h.Open[addr] <= 0:
			w.add(Wrong, fmt.Sprintf("the fence is closed for %s", addr), "open while the lease lasts", "see the gateway's log: the holder does not renew its lease")
		default:
			w.ok("%s is on the holder, the fence is open", addr)
		}
	}
	if h.Conflict != "" {
		w.add(Wrong, h.Conflict, "one owner of the VIP", "take the address from that host")
	}
	w.name = "way out"
	switch {
	case h.NoOutward != "":
		w.add(Wrong, h.NoOutward, "a route to the destination", "give the gateway's host a route to it")
	case h.Outward.Device == h.Device:
		w.add(Wrong, "the gateway's host routes the destination into the tunnel", "an interface of the host", "look for the rule that does it: ip rule, ip route get")
	default:
		w.ok("to %s by %s", w.Question.Packet.Dst, h.Outward.Device)
	}
	w.lacking("reply rule", h.Tunnel.Rules, "replies have their ip rule")
	w.lacking("gateway's tunnel", slices.Concat(h.Tunnel.Device, h.Settings), fmt.Sprintf("device %s is up", h.Device))
	w.lacking("reply route", h.Tunnel.Routes, fmt.Sprintf("the way to %s through the tunnel is there", a.View.Addr))
	w.name = "reply"
	switch {
	case h.NoWay != "":
		w.add(Wrong, h.NoWay, fmt.Sprintf("device %s to %s", h.Device, end(h.Back)), "see the steps above")
	case h.Way.Device != h.Device || h.Way.Remote != h.Back:
		w.add(Wrong, fmt.Sprintf("the kernel sends replies by table %d to device %s, tunnel end %s", h.Way.Table, h.Way.Device, end(h.Way.Remote)),
			fmt.Sprintf("device %s to %s", h.Device, end(h.Back)), "see the steps above; else an ip rule of another program goes first: ip rule shows it")
	default:
		w.ok("replies go by device %s to tunnel end %s", h.Way.Device, h.Way.Remote)
	}
	w.refused(h.Common)
	w.connections(h, vip)
	w.unread(h.Common)
}

// connections of the pod that there are already.
func (w *walk) connections(h Gateway, vip netip.Addr) {
	w.name = "connections"
	old := slices.IndexFunc(w.Agent.Connections, func(c Connection) bool { return c.Mark != w.Agent.Mark })
	if old >= 0 {
		w.at("connections", w.Agent.Node).add(Note, fmt.Sprintf("the one from port %d was begun another way", w.Agent.Connections[old].From.Port()),
			"new ones leave by "+vip.String(), "have the application connect again: a connection keeps the way it was born with")
		w.where = h.Node
	}
	answered := 0
	for _, c := range h.Connections {
		if c.Answered {
			answered++
		}
		if c.As.Addr() != vip {
			w.add(Wrong, fmt.Sprintf("the one from port %d leaves as %s", c.From.Port(), c.As), vip.String(), "another translation on the gateway's host goes first: sallyport doctor names it")
		}
	}
	switch n := len(h.Connections); {
	case n > 0 && answered == 0:
		w.add(Note, fmt.Sprintf("%d left as %s, none was answered", n, vip), "answers", "the partner, or a firewall on the way, does not let "+vip.String()+" in")
	case n > 0:
		w.ok("%d left as %s, %d were answered", n, vip, answered)
	}
}

func end(a netip.Addr) string {
	if !a.IsValid() {
		return "none"
	}
	return a.String()
}

func or(s, other string) string {
	if s == "" {
		return other
	}
	return s
}
