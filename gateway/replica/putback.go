package replica

import (
	"net/netip"
	"slices"
)

// present is told which of the VIPs' addresses the host has. Of a VIP that is held what is missing
// is put back: a network manager, or somebody's ip addr flush, took it off, or the agent did while
// the fence was shut.
func (k *keeper) present(addrs []netip.Addr) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, p := range k.posts {
		missing := slices.DeleteFunc(p.vip.Addrs(), func(a netip.Addr) bool { return slices.Contains(addrs, a) })
		if len(missing) == 0 || !p.held || p.withdrawn || p.until <= k.now() {
			continue
		}
		p.again = true
		k.rouse()
		if p.busy {
			continue // it may be on its way
		}
		k.log.Warn("somebody took the address of a VIP that is held here off, it is put back", "vip", p.vip.Addr, "addresses", missing)
	}
}
