package election

import "time"

// Limits that messages and configurations keep.
const (
	MaxName     = 255 // bytes of an ID or a VIP
	MaxReplicas = 31
	// MaxEntries in one message keeps it within one datagram; more are split.
	MaxEntries = 24
	// MaxVIPs in one message; of more, nobody is told.
	MaxVIPs = 64
	// MaxTerm is never reached by counting. A term beyond it is damage, and
	// following it would leave no term to stand in.
	MaxTerm = 1 << 60
)

// Message is all that one member says to another, or to all, at one moment.
type Message struct {
	From        string `cbor:"1,keyasint"`
	Incarnation uint64 `cbor:"2,keyasint"`
	Replicas    int    `cbor:"3,keyasint"`
	Timing      Timing `cbor:"4,keyasint"`
	// Voters are the names that the sender takes votes from; only some messages
	// to all carry them.
	Voters []string `cbor:"5,keyasint,omitempty"`
	// Leaving gives the sender's seat among the voters up.
	Leaving bool    `cbor:"6,keyasint,omitempty"`
	Entries []Entry `cbor:"7,keyasint,omitempty"`
	// VIPs are all that the sender is configured with, sorted; they come with Voters, or alone.
	VIPs []string `cbor:"8,keyasint,omitempty"`
}

// Entry is about one VIP.
type Entry struct {
	Kind Kind   `cbor:"1,keyasint"`
	VIP  string `cbor:"2,keyasint"`
	Term uint64 `cbor:"3,keyasint"`
	// Sent is the asker's clock when it asked, given back unchanged in the answer:
	// the lease runs from there. It means nothing to anybody else.
	Sent time.Duration `cbor:"4,keyasint,omitempty"`
	// Wait, in a refusal, is how long the voter is still bound to another.
	Wait time.Duration `cbor:"5,keyasint,omitempty"`
	// For, in an answer, is the incarnation that asked.
	For uint64 `cbor:"6,keyasint,omitempty"`
	// Heir, in a release, is who is to hold next; "": whoever wins.
	Heir string `cbor:"7,keyasint,omitempty"`
}

// Kind of an Entry.
type Kind uint8

// Kinds. The first four and an Offer go to all, the others answer.
const (
	Canvass   Kind = iota + 1 // pre-vote: would you vote for me in Term? Binds nobody
	Vote                      // vote for me in Term
	Heartbeat                 // I hold in Term, promise me another lease
	Release                   // I hold and stand no more in Term or before: be free
	Favour                    // I would
	Grant                     // I vote for you and promise you a lease
	Ack                       // I promise you another lease
	Refuse                    // no; Term is the highest I know, Wait how long I am bound
	Offer                     // I hold in Term: would you in my place? Binds nobody
	Accept                    // I would
)

var kinds = [...]string{Canvass: "canvass", Vote: "vote", Heartbeat: "heartbeat", Release: "release",
	Favour: "favour", Grant: "grant", Ack: "ack", Refuse: "refuse", Offer: "offer", Accept: "accept"}

// Known is false for kinds that no version defines.
func (k Kind) Known() bool { return k >= Canvass && k <= Accept }

func (k Kind) String() string {
	if !k.Known() {
		return "unknown"
	}
	return kinds[k]
}
