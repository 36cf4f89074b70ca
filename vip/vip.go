// Package vip says which addresses move together and when they are announced. It
// is pure; layer2 does it to an interface.
package vip

import (
	"net/netip"
)

// VIP is one floating address, and the inside address that moves with it on hosts
// with two networks.
type VIP struct {
	Addr      netip.Addr
	Interface string // "": the interface whose subnet holds the address
	// Via is where nodes send tunnel packets; the zero Addr means Addr itself.
	Via          netip.Addr
	ViaInterface string
}

// Inside is the tunnel end of the VIP's holder, as nodes address it.
func (v VIP) Inside() netip.Addr {
	if v.Via.IsValid() {
		return v.Via
	}
	return v.Addr
}
