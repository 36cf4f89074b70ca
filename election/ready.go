package election

import "time"

// Ready is what the caller has to do now, in this order: Leases before Send,
// because a member that resigns tells the voters in Send that it already let go.
type Ready struct {
	Leases      []LeaseChange
	Send        []Outgoing
	Transitions []Transition // for logs and metrics
}

// LeaseChange is a lease of this member gained, renewed or lost.
type LeaseChange struct {
	VIP  string
	Term uint64
	// Until is the time, on the clock that the caller feeds, after which nothing
	// may act for the VIP any more, whether or not this process runs then; 0 is
	// now. It is absolute: read the clock again before making a timeout of it.
	Until time.Duration
}

// Outgoing is a message and the ID of its receiver, "" being every other member.
type Outgoing struct {
	To      string
	Message Message
}

// Transition is a change of the holder as this member knows it; "" is nobody known.
type Transition struct {
	VIP    string
	From   string
	To     string
	Term   uint64
	Reason string
	// Silent is for how long From had given no sign of life, as this member knows.
	Silent time.Duration
}

// Reasons of transitions that every group may come to have. Others tell more, behind
// a colon, or are of a host that is in trouble.
const (
	elected    = "elected"
	saysSo     = "it says so"
	silent     = "no heartbeat for a lease"
	ranOut     = "its lease ran out"
	gaveUp     = "it gave up"
	handedOver = "handed over"
)

// Reasons are those.
func Reasons() []string { return []string{elected, saysSo, silent, ranOut, gaveUp, handedOver} }

// Role of a member in respect of one VIP.
type Role string

// Roles.
const (
	Holder     Role = "holder"
	Standby    Role = "standby"
	Candidate  Role = "candidate"
	Ineligible Role = "ineligible" // it votes, but does not stand
	Abstaining Role = "abstaining" // it does not even vote; Why says for what reason
)

// Status of one VIP as this member knows it.
type Status struct {
	VIP    string        `json:"vip"`
	Holder string        `json:"holder,omitempty"`
	Term   uint64        `json:"term"`
	Since  time.Duration `json:"since"` // when the holder became known, on this member's clock
	Role   Role          `json:"role"`
	Why    string        `json:"why,omitempty"`
	// Voters heard from lately, this one included, sorted; Quorum of them are needed.
	Voters []string `json:"voters"`
	Quorum int      `json:"quorum"`
	// Until is the end of the lease on this member's clock, zero unless it holds.
	Until time.Duration `json:"until,omitempty"`
	// RTT of the heartbeat that last renewed the lease, zero unless it holds.
	RTT time.Duration `json:"rtt,omitempty"`
	// Willing are the voters that took a recent Offer, sorted, none unless it holds.
	Willing []string `json:"willing,omitempty"`
}
