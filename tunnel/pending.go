package tunnel

import "net/netip"

// Pending is what the kernel lacks of a Plan, in words.
type Pending struct {
	Device []string `json:"device,omitempty"`
	Rules  []string `json:"rules,omitempty"`
	Routes []string `json:"routes,omitempty"`
}

// Way is a route that the kernel chose.
type Way struct {
	Device string     `json:"device"`
	Table  int        `json:"table"`
	Remote netip.Addr `json:"remote,omitzero"` // far end of the tunnel
}
