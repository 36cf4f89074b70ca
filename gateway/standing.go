package gateway

import (
	"net/netip"
	"slices"
	"strings"
)

// Standing is which pods each address belongs to. What an address was allowed ends
// with its pods: the next pod with the address starts anew.
type Standing map[netip.Addr]string

// StandingOf the pods that live on the pod network.
func StandingOf(pods []Pod) Standing {
	owners := make(map[netip.Addr][]string, len(pods))
	for _, p := range pods {
		if p.Ended || p.HostNetwork {
			continue
		}
		for _, addr := range p.Addrs {
			owners[addr] = append(owners[addr], p.Namespace+"/"+p.Name+"/"+p.UID)
		}
	}
	s := make(Standing, len(owners))
	for addr, names := range owners {
		slices.Sort(names)
		s[addr] = strings.Join(names, " ")
	}
	return s
}

// Ended tells whether what is known of the address from before belongs to nobody
// any more. With no Standing from before, that is so for addresses of no pod.
func (s Standing) Ended(before Standing, addr netip.Addr) bool {
	if before == nil {
		return s[addr] == ""
	}
	owner := before[addr]
	return owner != "" && owner != s[addr]
}

// AnyEnded tells whether Ended is true of any address.
func (s Standing) AnyEnded(before Standing) bool {
	if before == nil {
		return true
	}
	for addr, owner := range before {
		if s[addr] != owner {
			return true
		}
	}
	return false
}
