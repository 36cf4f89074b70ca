package trace

import (
	"net/netip"
	"time"

	"github.com/sallyport/sallyport/doctor"
	"github.com/sallyport/sallyport/gateway"
	"github.com/sallyport/sallyport/netfilter"
	"github.com/sallyport/sallyport/tunnel"
)

// Facts are all that was found.
type Facts struct {
	Question Question
	// API is the pod as the API server has it; nil where there is none.
	API *Pod
	// Agent of the pod's node; nil: it did not answer, for the reason in Silent.
	Agent    *Agent
	Gateways []Gateway
	// Silent are those that were asked and gave no answer.
	Silent []Silent
	Probe  *Probe
}

// Pod as the API server has it.
type Pod struct {
	Found bool
	Node  string
	Phase string
	Addrs []netip.Addr
	Annotation
}

// Annotation of the pod as the API server has it.
type Annotation struct {
	Value string
	Given bool
}

// Silent is a program that did not answer.
type Silent struct{ Program, Where, Why string }

// Common is what agent and gateway both say.
type Common struct {
	Node  string `json:"node"`
	Live  bool   `json:"live"`  // its view is the source's own
	Apply string `json:"apply"` // why the last view is not in the kernel, "" when it is
	// View is what its own view makes of the packet.
	View gateway.Explanation `json:"view"`
	// Filter and Tunnel are what the kernel lacks of what it is to have.
	Filter   []netfilter.Pending `json:"filter,omitempty"`
	Tunnel   tunnel.Pending      `json:"tunnel"`
	Settings []string            `json:"settings,omitempty"` // of the host that keep the tunnel from working
	Device   string              `json:"device"`             // of the tunnel
	// Way is where the kernel sends the packet: an agent's to the destination with the
	// mark, a gateway's reply to the pod.
	Way   tunnel.Way `json:"way"`
	NoWay string     `json:"noWay,omitempty"` // why there is none
	// Refused is why other hosts refuse what it sends through the tunnel.
	Refused []string `json:"refused,omitempty"`
	// Errors are what could not be read.
	Errors []string `json:"errors,omitempty"`
	// Connections of the pod to the destination in its kernel, some of them.
	Connections []Connection `json:"connections,omitempty"`
}

// Refuse enters the problems that the program has with its own Node: of one without the
// address that it sends from.
func (c *Common) Refuse(own []gateway.Problem) {
	for _, p := range own {
		if p.Reason == gateway.UnknownNode {
			c.Refused = append(c.Refused, p.String())
		}
	}
}

// Connection as connection tracking has it.
type Connection struct {
	From     netip.AddrPort `json:"from"`
	As       netip.AddrPort `json:"as"` // after translation
	Answered bool           `json:"answered"`
	Mark     uint32         `json:"mark"`
}

// Agent of the pod's node.
type Agent struct {
	Common
	// Mark that its kernel is to give the packets of the VIP.
	Mark   uint32     `json:"mark"`
	Remote netip.Addr `json:"remote,omitzero"` // where packets for the VIP are tunnelled to
	Left   bool       `json:"left,omitempty"`  // the pod's interface is gone
	// Path is how large packets for the VIP may be; nil: there is no tunnel to send them.
	Path *doctor.Path `json:"path,omitempty"`
}

// Gateway is one replica.
type Gateway struct {
	Common
	Name   string     `json:"name"`
	Known  bool       `json:"known"` // it is configured to hold the VIP
	Held   bool       `json:"held"`
	Holder string     `json:"holder"`
	Voters []string   `json:"voters"`
	Quorum int        `json:"quorum"`
	Barred string     `json:"barred,omitempty"`
	Inside netip.Addr `json:"inside,omitzero"`
	// Has are which of the VIP's addresses its kernel has, Open for how long the fence
	// lets each through.
	Has  []netip.Addr                 `json:"has,omitempty"`
	Open map[netip.Addr]time.Duration `json:"open,omitempty"`
	// Outward is its kernel's way to the partner.
	Outward   tunnel.Way `json:"outward"`
	NoOutward string     `json:"noOutward,omitempty"`
	Conflict  string     `json:"conflict,omitempty"` // another host that claims the VIP
	Back      netip.Addr `json:"back,omitzero"`      // tunnel end that replies to the pod are to go to
}

// Probe is what came of a real connection from the pod.
type Probe struct {
	Connected bool       `json:"connected"`
	Seen      netip.Addr `json:"seen,omitzero"` // as the outside saw it
	Error     string     `json:"error,omitempty"`
}
