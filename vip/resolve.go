package vip

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Interface is one interface of a host with its own addresses and their subnets.
type Interface struct {
	Name     string
	Prefixes []netip.Prefix
}

// Resolve fills in the interfaces that v leaves open: the one whose subnet holds the
// address, the longest prefix winning as it does in routing. An interface that was
// named must exist; its subnet need not hold the address, since a segment may carry
// a VIP without numbering its hosts.
func Resolve(v VIP, seen []Interface) (VIP, error) {
	var err error
	if v.Interface, err = resolve(v.Addr, v.Interface, seen); err != nil {
		return VIP{}, fmt.Errorf("--vip %q: %w", v, err)
	}
	if v.Via.IsValid() {
		if v.ViaInterface, err = resolve(v.Via, v.ViaInterface, seen); err != nil {
			return VIP{}, fmt.Errorf("--vip %q: via: %w", v, err)
		}
	}
	return v, nil
}

func resolve(addr netip.Addr, name string, seen []Interface) (string, error) {
	var found []string
	longest := -1
	for _, i := range seen {
		for _, p := range i.Prefixes {
			// A host prefix is no subnet, and may be the VIP itself, left by a holder that was killed.
			if p.IsSingleIP() || !p.Contains(addr) {
				continue
			}
			if why := reserved(addr, p); why != "" {
				return "", fmt.Errorf("%s is %s on %s (%s): choose an address of that subnet which no host has", addr, why, i.Name, p)
			}
			if p.Bits() > longest {
				longest, found = p.Bits(), nil
			}
			if p.Bits() == longest && !slices.Contains(found, i.Name) {
				found = append(found, i.Name)
			}
		}
	}
	switch {
	case name != "" && !slices.ContainsFunc(seen, func(i Interface) bool { return i.Name == name }):
		return "", fmt.Errorf("this host has no interface %s; it has %s", name, list(seen))
	case name != "":
		return name, nil
	case len(found) == 0:
		return "", fmt.Errorf("%s lies in the subnet of no interface of this host (%s): correct the address, or name the interface as %s@INTERFACE", addr, list(seen), addr)
	case len(found) > 1:
		return "", fmt.Errorf("%s lies in the subnets of %s: name one, as in %s@%s", addr, strings.Join(found, " and "), addr, found[0])
	}
	return found[0], nil
}

// reserved says what of the subnet the address already is.
func reserved(addr netip.Addr, p netip.Prefix) string {
	switch {
	case p.Addr() == addr:
		return "this host's own address"
	case !addr.Is4() || p.Bits() >= 31: // RFC 3021: two-host subnets have neither
		return ""
	case p.Masked().Addr() == addr:
		return "the network's address"
	case !p.Contains(addr.Next()):
		return "the broadcast address"
	}
	return ""
}

func list(seen []Interface) string {
	if len(seen) == 0 {
		return "none"
	}
	var names []string
	for _, i := range seen {
		var prefixes []string
		for _, p := range i.Prefixes {
			prefixes = append(prefixes, p.String())
		}
		names = append(names, strings.TrimSpace(i.Name+" "+strings.Join(prefixes, " ")))
	}
	return strings.Join(names, ", ")
}
