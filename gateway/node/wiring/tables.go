package wiring

import (
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/gateway"
)

// tables are what the kernel has that leads from an address to an interface.
type tables struct {
	live       map[int]bool
	bridges    map[int]bool
	routes     map[netip.Addr]int
	neighbours map[onLink]string // hardware addresses
	ports      map[learned]int   // a bridge's forwarding database
}

type onLink struct {
	addr netip.Addr
	link int
}

type learned struct {
	bridge int
	mac    string
}

func newTables() *tables {
	return &tables{
		live: map[int]bool{}, bridges: map[int]bool{}, routes: map[netip.Addr]int{},
		neighbours: map[onLink]string{}, ports: map[learned]int{},
	}
}

// home of an address; false where the network does not know one.
func (t *tables) home(a netip.Addr) (gateway.Home, bool) {
	if link, routed := t.routes[a]; routed && t.live[link] {
		return gateway.Home{Interface: link, Routed: true}, true
	}
	for bridge := range t.bridges {
		mac, resolved := t.neighbours[onLink{a, bridge}]
		if !resolved {
			continue
		}
		if port, known := t.ports[learned{bridge, mac}]; known && t.live[port] {
			return gateway.Home{Interface: port}, true
		}
	}
	return gateway.Home{}, false
}

// link takes a change of an interface, and tells whether one is gone.
func (t *tables) link(u netlink.LinkUpdate) bool {
	index := int(u.Index)
	if u.Header.Type == unix.RTM_DELLINK {
		if u.Family == unix.AF_BRIDGE {
			return false // it left its bridge; that it is gone is told apart
		}
		delete(t.live, index)
		delete(t.bridges, index)
		return true
	}
	t.add(index, u.Type())
	return false
}

func (t *tables) add(index int, kind string) {
	t.live[index] = true
	if kind == "bridge" {
		t.bridges[index] = true
	}
}

// route takes a route to one address on an interface of this node.
func (t *tables) route(change uint16, r netlink.Route) {
	if r.Dst == nil || r.Table != unix.RT_TABLE_MAIN || r.Type != unix.RTN_UNICAST || r.LinkIndex == 0 || len(r.Gw) > 0 {
		return
	}
	addr, ok := netip.AddrFromSlice(r.Dst.IP)
	addr = addr.Unmap()
	if ones, _ := r.Dst.Mask.Size(); !ok || ones != addr.BitLen() {
		return
	}
	switch {
	case change == unix.RTM_NEWROUTE:
		t.routes[addr] = r.LinkIndex
	case t.routes[addr] == r.LinkIndex:
		delete(t.routes, addr)
	}
}

// neighbour takes an entry of the neighbour table, or of a bridge's forwarding database.
func (t *tables) neighbour(change uint16, n netlink.Neigh) {
	const unresolved = netlink.NUD_INCOMPLETE | netlink.NUD_FAILED
	there := change == unix.RTM_NEWNEIGH && n.State&unresolved == 0 && len(n.HardwareAddr) == 6
	if n.Family == unix.AF_BRIDGE {
		at := learned{n.MasterIndex, string(n.HardwareAddr)}
		switch {
		case n.MasterIndex == 0: // a device's own filter, no bridge's
		case there:
			t.ports[at] = n.LinkIndex
		case t.ports[at] == n.LinkIndex:
			delete(t.ports, at)
		}
		return
	}
	addr, ok := netip.AddrFromSlice(n.IP)
	if !ok {
		return
	}
	at := onLink{addr.Unmap(), n.LinkIndex}
	if there {
		t.neighbours[at] = string(n.HardwareAddr)
	} else {
		delete(t.neighbours, at)
	}
}
