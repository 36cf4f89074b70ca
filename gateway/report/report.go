// Package report decides what people read about routes in the API: the status of
// each EgressRoute, which replica writes it, and the events on routes and pods. It
// is pure: the same sight always gives the same status, so that nothing is written
// when nothing changed.
package report

import (
	"net/netip"
	"time"

	"github.com/sallyport/sallyport/gateway"
)

// Sight is what one gateway replica knows and does at one moment.
type Sight struct {
	Name string // the replica's, as in VIP.Holder
	Node string
	VIPs []VIP // all that the replica is configured with
	// Applied is false until a first view was brought to the kernel or failed to be.
	Applied bool
	// Plan and Problems are those of the last view that was brought to the kernel, or
	// with ApplyError failed to be.
	Plan       gateway.Plan
	Problems   []gateway.Problem
	ApplyError string
}

// VIP as the replica sees it.
type VIP struct {
	Addr   netip.Addr
	Holder string // "" when none is known
	Held   bool   // by this replica, its lease lasts
	// Since is when the holder, or that there is none, became known.
	Since  time.Time
	Voters []string // heard lately, this replica included, sorted
	Quorum int
	Barred string // why this replica does not stand for it
	// Unclaimed is why the address is not on the interface although the replica holds
	// the lease, Conflict that another host claims it as well.
	Unclaimed, Conflict string
}

// Route is an EgressRoute as it is in the API.
type Route struct {
	Name       string
	UID        string
	Generation int64
	VIP        netip.Addr // the zero Addr when spec.vip is none
	Invalid    string     // what its validation refuses, "" when it is valid
	Status     Status
}

// Status of a route.
type Status struct {
	Accepted, Programmed Condition
	Holder               string // node name
	Pods                 int
	ObservedGeneration   int64
}

// Condition of a route; the zero value is one that was never written.
type Condition struct {
	Status             Verdict
	Reason             string
	Message            string
	Since              time.Time // when Status last changed
	ObservedGeneration int64
}

// Verdict is a condition's status as the API spells it.
type Verdict string

// Verdicts.
const (
	True  Verdict = "True"
	False Verdict = "False"
)

// Reasons of conditions and events; a condition that problems keep from being true
// has the first problem's reason.
const (
	Accepted    = "Accepted"
	Invalid     = "Invalid"
	NotAccepted = "NotAccepted" // Programmed is False because Accepted is
	Programmed  = "Programmed"
	NoHolder    = "NoHolder"    // no gateway holds the VIP
	ApplyFailed = "ApplyFailed" // the holder's kernel refuses the rules
	ClaimFailed = "ClaimFailed" // the holder's interface does not get the VIP
	VIPConflict = "VIPConflict" // another host claims the VIP as well
	HolderMoved = "HolderMoved"
	Steered     = "Steered"
)
