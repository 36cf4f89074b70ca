// Package wire turns messages of the election into bytes and back, in CBOR
// (RFC 8949). What does not come out exactly as this version would have meant it
// is an error: a half-understood promise is worse than none.
package wire

import (
	"fmt"
	"math"

	"github.com/fxamacker/cbor/v2"

	"github.com/sallyport/sallyport/election"
)

// MaxSize of a message in bytes. The machine's own stay far below.
const MaxSize = 64 << 10

var (
	encoding = must(cbor.EncOptions{Sort: cbor.SortCoreDeterministic, ShortestFloat: cbor.ShortestFloat16}.EncMode())
	decoding = must(cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField, UTF8: cbor.UTF8RejectInvalid,
		MaxNestedLevels: 4, MaxArrayElements: 256, MaxMapPairs: 16,
	}.DecMode())
)

func must[T any](mode T, err error) T {
	if err != nil {
		panic(err) // the options are constants
	}
	return mode
}

// Encode gives equal bytes for equal messages.
func Encode(msg election.Message) ([]byte, error) {
	data, err := encoding.Marshal(msg)
	if err != nil {
		return nil, fmt.Errorf("encode election message of %s: %w", msg.From, err)
	}
	return data, nil
}

// Decode refuses what is malformed, too large, or not possible in a message.
func Decode(data []byte) (election.Message, error) {
	if len(data) > MaxSize {
		return election.Message{}, fmt.Errorf("decode election message: %d bytes are more than %d", len(data), MaxSize)
	}
	var msg election.Message
	if err := decoding.Unmarshal(data, &msg); err != nil {
		return election.Message{}, fmt.Errorf("decode election message: %w", err)
	}
	if err := check(msg); err != nil {
		return election.Message{}, fmt.Errorf("decode election message of %q: %w", msg.From, err)
	}
	return msg, nil
}

func check(msg election.Message) error {
	t := msg.Timing
	switch {
	case !isName(msg.From):
		return fmt.Errorf("sender's name has %d bytes", len(msg.From))
	case msg.Incarnation == 0:
		return fmt.Errorf("incarnation is zero")
	case msg.Replicas < 1 || msg.Replicas > election.MaxReplicas:
		return fmt.Errorf("replicas is %d", msg.Replicas)
	case t.Lease < 0 || t.Heartbeat < 0 || t.Margin < 0 || t.Spread < 0 || math.IsNaN(t.Drift) || math.IsInf(t.Drift, 0):
		return fmt.Errorf("timing is %v", t)
	case len(msg.Voters) > election.MaxReplicas:
		return fmt.Errorf("%d voters", len(msg.Voters))
	case len(msg.VIPs) > election.MaxVIPs:
		return fmt.Errorf("%d VIPs", len(msg.VIPs))
	case len(msg.Entries) > election.MaxEntries:
		return fmt.Errorf("%d entries", len(msg.Entries))
	}
	for _, id := range msg.Voters {
		if !isName(id) {
			return fmt.Errorf("voter's name has %d bytes", len(id))
		}
	}
	for _, vip := range msg.VIPs {
		if !isName(vip) {
			return fmt.Errorf("VIP has %d bytes", len(vip))
		}
	}
	for i, e := range msg.Entries {
		if !e.Kind.Known() || !isName(e.VIP) || e.Term > election.MaxTerm || e.Sent < 0 || e.Wait < 0 || len(e.Heir) > election.MaxName {
			return fmt.Errorf("entry %d is %+v", i, e)
		}
	}
	return nil
}

func isName(s string) bool { return s != "" && len(s) <= election.MaxName }
