package vip

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Example is quoted by every error about a --vip flag.
const Example = "192.0.2.10, 192.0.2.10@eth0 or 192.0.2.10@eth0,via=10.0.0.10@eth1"

// Parse reads one value of --vip: the address, optionally its interface, optionally
// the inside address that moves with it. Both families are read; what a program
// can serve is for the program to say.
func Parse(s string) (VIP, error) {
	outside, inside, hasVia := strings.Cut(s, ",")
	var v VIP
	var err error
	if v.Addr, v.Interface, err = parseEnd(outside); err != nil {
		return VIP{}, fmt.Errorf("--vip %q: %w", s, err)
	}
	if !hasVia {
		return v, nil
	}
	inside, isVia := strings.CutPrefix(inside, "via=")
	if !isVia {
		return VIP{}, fmt.Errorf("--vip %q: after the comma comes via=ADDRESS[@INTERFACE]; give the flag again for another VIP", s)
	}
	if v.Via, v.ViaInterface, err = parseEnd(inside); err != nil {
		return VIP{}, fmt.Errorf("--vip %q: via: %w", s, err)
	}
	if v.Via == v.Addr {
		return VIP{}, fmt.Errorf("--vip %q: the inside address is the VIP itself: leave via= out", s)
	}
	if v.Via.Is4() != v.Addr.Is4() {
		return VIP{}, fmt.Errorf("--vip %q: the VIP and its inside address are of two families: give both as IPv4 or both as IPv6", s)
	}
	return v, nil
}

func parseEnd(s string) (netip.Addr, string, error) {
	text, iface, hasIface := strings.Cut(s, "@")
	addr, err := netip.ParseAddr(text)
	switch {
	case text == "":
		return addr, "", fmt.Errorf("the address is missing: give it as in %s", Example)
	case strings.Contains(text, "/"):
		return addr, "", fmt.Errorf("%q has a prefix length: a VIP is one address, give it as in %s", text, Example)
	case err != nil:
		return addr, "", fmt.Errorf("%q is no IP address: give one as in %s", text, Example)
	case addr.Zone() != "":
		return addr, "", fmt.Errorf("%q has a zone: name the interface as %s@%s", text, addr.WithZone(""), addr.Zone())
	case addr.Is4In6():
		return addr, "", fmt.Errorf("%q is IPv4 written as IPv6: write it as %s", text, addr.Unmap())
	case addr.IsUnspecified() || addr.IsLoopback() || addr.IsMulticast() || addr.IsLinkLocalUnicast() || addr == limitedBroadcast:
		return addr, "", fmt.Errorf("%s cannot be held by a host and be reached by others: give a unicast address of the segment", addr)
	case hasIface && !validInterface(iface):
		return addr, "", fmt.Errorf("%q is no interface name (1 to 15 characters, without space, slash, colon, comma or @): see `ip link`, or leave @%s out", iface, iface)
	}
	return addr, iface, nil
}

var limitedBroadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// validInterface follows dev_valid_name (net/core/dev.c), less what our own syntax
// needs.
func validInterface(name string) bool {
	return name != "" && len(name) <= 15 && name != "." && name != ".." &&
		!strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune("/:,@", r) })
}

// String is the value that Parse reads back as v.
func (v VIP) String() string {
	s := end(v.Addr, v.Interface)
	if v.Via.IsValid() {
		s += ",via=" + end(v.Via, v.ViaInterface)
	}
	return s
}

func end(a netip.Addr, iface string) string {
	if iface == "" {
		return a.String()
	}
	return a.String() + "@" + iface
}

// Addrs are the addresses that move: the VIP, and the inside address if there is one.
func (v VIP) Addrs() []netip.Addr {
	if v.Via.IsValid() {
		return []netip.Addr{v.Addr, v.Via}
	}
	return []netip.Addr{v.Addr}
}

// Addrs are the addresses of all VIPs, sorted.
func Addrs(vips []VIP) []netip.Addr {
	var addrs []netip.Addr
	for _, v := range vips {
		addrs = append(addrs, v.Addrs()...)
	}
	return slices.Compact(slices.SortedFunc(slices.Values(addrs), netip.Addr.Compare))
}

// ParseAll reads all values of --vip and reports everything that is wrong with
// them. No address may occur twice: each VIP moves by itself, with what is its own.
func ParseAll(values []string) ([]VIP, error) {
	var vips []VIP
	var errs []error
	seen := map[netip.Addr]string{}
	for _, s := range values {
		v, err := Parse(s)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		double := false
		for _, a := range v.Addrs() {
			if first, is := seen[a]; is {
				errs = append(errs, fmt.Errorf("--vip %q: %s is already in --vip %q: remove one of the two", s, a, first))
				double = true
				continue
			}
			seen[a] = s
		}
		if !double {
			vips = append(vips, v)
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return vips, nil
}
