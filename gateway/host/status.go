package host

import (
	"net/netip"
	"time"

	"github.com/sallyport/sallyport/gateway"
	"github.com/sallyport/sallyport/netfilter"
)

// Status is what GET /status gives and `sallyport status` prints.
type Status struct {
	Program   string    `json:"program"`        // "gateway" or "agent"
	Name      string    `json:"name,omitempty"` // a gateway's, as VIP.Holder and VIP.Voters have it
	Node      string    `json:"node"`
	Version   string    `json:"version"`
	Started   time.Time `json:"started"`
	Netfilter string    `json:"netfilter"`
	// Priority is the scheduling that a gateway runs under, Timing its profile.
	Priority string `json:"priority,omitempty"`
	Timing   string `json:"timing,omitempty"`
	// PriorityRefused tells that a gateway has not the one that it is to have.
	PriorityRefused bool `json:"priorityRefused,omitempty"`
	// Live is false while the view is the one saved by an earlier run.
	Live bool `json:"live"`
	// ViewAgeSeconds is for how long the source has not given a view that is whole; nil: it
	// never has.
	ViewAgeSeconds *float64                    `json:"viewAgeSeconds,omitempty"`
	Apply          Apply                       `json:"apply"`
	VIPs           []VIP                       `json:"vips"`
	Routes         []Route                     `json:"routes"`
	Pods           []Pod                       `json:"pods"`
	Dropped        map[string]netfilter.Counts `json:"dropped"` // by reason
	// KeptOut is, of an agent, the part of the packets dropped for exclusive routes, by
	// namespace, of those with the most pods on the node.
	KeptOut  map[string]netfilter.Counts `json:"keptOut,omitempty"`
	Problems []gateway.Problem           `json:"problems"`
	// SYNRetry of an agent; nil: it is off, or not possible.
	SYNRetry *SYNRetry `json:"synRetry,omitempty"`
	// FastPath of an agent or a gateway; nil: it is off.
	FastPath *FastPath `json:"fastPath,omitempty"`
	// Audit of a gateway; nil: there is none.
	Audit *Audit `json:"audit,omitempty"`
}

// Apply is how the last change reached the kernel.
type Apply struct {
	Done    bool      `json:"done"` // at least once since the start
	At      time.Time `json:"at"`
	Seconds float64   `json:"seconds"`
	Errors  uint64    `json:"errors"`
	Error   string    `json:"error,omitempty"` // the last run's, "" when it succeeded
}

// VIP as one gateway replica sees it. An agent knows the address only.
type VIP struct {
	VIP       netip.Addr `json:"vip"`
	Inside    netip.Addr `json:"inside,omitzero"`
	Interface string     `json:"interface,omitempty"`
	Holder    string     `json:"holder"` // "" when none is known
	Held      bool       `json:"held"`   // by this replica
	Since     time.Time  `json:"since,omitzero"`
	Term      uint64     `json:"term"`
	Voters    []string   `json:"voters"` // heard within the last lease, this replica included
	Replicas  int        `json:"replicas"`
	// LeaseSeconds is what is left of this replica's own lease.
	LeaseSeconds float64 `json:"leaseSeconds"`
	// HeartbeatSeconds is the last round trip to a quorum.
	HeartbeatSeconds float64           `json:"heartbeatSeconds"`
	Transitions      map[string]uint64 `json:"transitions"` // changes of holder seen, by reason
	// WithoutHolderSeconds is how long this replica knew of no holder since its start.
	WithoutHolderSeconds float64 `json:"withoutHolderSeconds"`
	// Failover is the last that this replica saw; nil: none.
	Failover *Failover `json:"failover,omitempty"`
	// DuplicateOwners is how often another host was seen to claim the VIP.
	DuplicateOwners uint64 `json:"duplicateOwners"`
	// Barred says why this replica does not stand for the VIP, "" when it does.
	Barred string `json:"barred,omitempty"`
	// Connections of the VIP in this kernel, and Ports, those of its source ports that are
	// nearest to an end, the worst first; counted every few seconds.
	Connections int       `json:"connections"`
	Ports       []PortUse `json:"ports,omitempty"`
	// Replication of the VIP's connections; nil: there is none.
	Replication *Replication `json:"replication,omitempty"`
}

// Failover is one holder's end and what came after.
type Failover struct {
	At     time.Time `json:"at"`
	From   string    `json:"from"`
	To     string    `json:"to"`
	Reason string    `json:"reason"` // why From held no more
	// Seconds from the last sign of life of the one to the first of the other.
	Seconds float64 `json:"seconds"`
}

// Route that takes effect.
type Route struct {
	Name string           `json:"name"`
	VIP  netip.Addr       `json:"vip"`
	Pods int              `json:"pods"`
	Sent netfilter.Counts `json:"traffic"` // both directions, on this replica
	// Connections in this kernel, and of the destinations they go to the one towards which most of
	// the VIP's source ports are taken; nil: none. Counted every few seconds, by a gateway.
	Connections int    `json:"connections"`
	Fullest     *Ports `json:"fullest,omitempty"`
}

// Pod that is steered or admitted.
type Pod struct {
	Namespace string     `json:"namespace"`
	Name      string     `json:"name"`
	Addr      netip.Addr `json:"addr"`
	Node      string     `json:"node"`
	Routes    []string   `json:"routes"`
}

// Describe fills the parts of a Status that follow from a plan.
func (s *Status) Describe(plan gateway.Plan) {
	s.Routes, s.Pods = []Route{}, []Pod{}
	for _, r := range plan.Routes {
		s.Routes = append(s.Routes, Route{Name: r.Name, VIP: r.VIP, Pods: r.Pods})
	}
	for _, p := range plan.Pods {
		pod := Pod{Namespace: p.Namespace, Name: p.Name, Addr: p.Addr, Node: p.Node}
		for _, r := range p.Routes {
			pod.Routes = append(pod.Routes, plan.Routes[r].Name)
		}
		s.Pods = append(s.Pods, pod)
	}
}

// Aged fills in how old the view is.
func (s *Status) Aged(v *View) {
	if age, ok := v.Age(); ok {
		seconds := age.Seconds()
		s.ViewAgeSeconds = &seconds
	}
}
