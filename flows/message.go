package flows

import "errors"

// Kind of a message.
type Kind uint8

// Kinds. The first two come from the standby, which also gives an End back when it has
// the snapshot, and a Beat to be heard. Asked, it sends a snapshot of its own first.
const (
	Hello    Kind = iota + 1 // who follows which VIP, from which term on
	Ack                      // the own kernel has all up to batch Seq
	Begin                    // a snapshot begins; batch Seq will follow it
	Snapshot                 // a part of it
	End                      // it is complete
	Changes                  // batch Seq
	Beat                     // the sender is there and has nothing to say
	Merge                    // as End, of a standby that may lack what has not ended
	Ask                      // the standby's table is newer: the holder wants it first
)

// Message is all that is ever said.
type Message struct {
	Kind    Kind
	Term    uint64
	Seq     uint64
	Name    string   // in a Hello, the standby's name
	VIP     string   // in a Hello
	Have    Position // in a Hello, of the standby's table
	Changes []Change
}

const (
	// Version of the messages; a Hello of another is refused.
	Version = 2
	// MaxChanges in one message.
	MaxChanges = 512
	// MaxFrame is the size of a message in bytes, the longest there can be.
	MaxFrame = 64 << 10
	maxName  = 255
)

// Errors of Decode.
var (
	errShort   = errors.New("message is cut short")
	errLong    = errors.New("message is longer than any can be")
	errKind    = errors.New("message is of no kind that this version knows")
	errVersion = errors.New("message is of another version: run the same version on all gateways")
	errFlow    = errors.New("message has a connection that cannot be")
)
