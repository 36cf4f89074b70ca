package replica

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/sallyport/sallyport/election/gossip"
)

// electors are those whose votes count, where it is known beforehand: by name, or by
// address. The votes of anybody else do not: more voters than --replicas could elect
// two holders. The zero value knows nobody, and takes the first that meet.
type electors struct {
	names []string
	addrs map[netip.Addr]bool
}

// has tells whether the sender of a message is one of them.
func (e electors) has(m gossip.Message) bool {
	switch {
	case e.names != nil:
		return slices.Contains(e.names, m.From)
	case e.addrs != nil:
		return e.addrs[m.Addr.Addr()]
	}
	return true
}

// flag is where they come from.
func (e electors) flag() string {
	if e.names != nil {
		return "--members"
	}
	return "--join"
}

// electors are named by --members, or else known by their addresses where --join,
// with this member's own, gives all of them as addresses. A pod keeps its name when
// it moves, a host its address.
func (c Config) electors() (electors, error) {
	if len(c.Members) > 0 {
		names := slices.Compact(slices.Sorted(slices.Values(c.Members)))
		switch {
		case len(names) != len(c.Members):
			return electors{}, fmt.Errorf("--members %q: name each gateway once", c.Members)
		case len(names) != c.Replicas:
			return electors{}, fmt.Errorf("--members names %d gateways where --replicas says %d: name all of them, the same on each", len(names), c.Replicas)
		case !slices.Contains(names, c.Gossip.Name):
			return electors{}, fmt.Errorf("--members %q: does not name this gateway, %s: name all of them, the same on each, or correct --name", c.Members, c.Gossip.Name)
		}
		return electors{names: names}, nil
	}
	addrs := map[netip.Addr]bool{c.NodeIP: true}
	for _, j := range c.Gossip.Join {
		addr, err := netip.ParseAddr(j)
		if err != nil {
			withPort, err := netip.ParseAddrPort(j)
			if err != nil {
				return electors{}, nil // a host name: who it is may change
			}
			addr = withPort.Addr()
		}
		addrs[addr] = true
	}
	if len(addrs) < c.Replicas {
		return electors{}, nil
	}
	if len(addrs) > c.Replicas {
		return electors{}, fmt.Errorf("--join and --node-ip %s are %d gateways where --replicas says %d: a quorum of %d could then be had twice; make them agree",
			c.NodeIP, len(addrs), c.Replicas, c.Replicas/2+1)
	}
	return electors{addrs: addrs}, nil
}
