package flows_test

import (
	"bytes"
	"net/netip"
	"reflect"
	"testing"

	"github.com/sallyport/sallyport/flows"
)

func some(n int) (changes []flows.Change) {
	for i := range n {
		f := flows.Flow{Key: flows.Key{
			Src: netip.AddrFrom4([4]byte{10, 244, byte(i >> 8), byte(i)}), Dst: netip.AddrFrom4([4]byte{203, 0, 113, 5}),
			SrcPort: uint16(40000 + i), DstPort: 443, Protocol: 6,
		}, Port: uint16(40000 + i), State: 3, Status: 6, Mark: 0x510500}
		if i%3 == 1 {
			f.Src, f.Dst = netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::5")
		}
		c := flows.Change{Op: flows.Op(i%3) + 1, Flow: f}
		if c.Op == flows.Delete {
			c.Flow = flows.Flow{Key: f.Key}
		}
		changes = append(changes, c)
	}
	return changes
}

func messages() []flows.Message {
	return []flows.Message{
		{Kind: flows.Hello, Term: 7, Name: "sallyport-gateway-1", VIP: "192.0.2.10", Have: flows.Position{Term: 6, Seq: 90}},
		{Kind: flows.Begin, Term: 7, Seq: 12},
		{Kind: flows.Snapshot, Term: 7, Changes: some(1)},
		{Kind: flows.Snapshot, Term: 7, Changes: some(flows.MaxChanges)},
		{Kind: flows.End, Term: 7, Seq: 12},
		{Kind: flows.Changes, Term: 7, Seq: 12, Changes: some(9)},
		{Kind: flows.Beat, Term: 7},
		{Kind: flows.Ack, Term: 7, Seq: 12},
		{Kind: flows.Ask, Term: 7},
	}
}

func TestDecodeGivesWhatWasEncoded(t *testing.T) {
	var again flows.Decoder // in the memory of those before
	for _, m := range messages() {
		b := flows.Encode(m)
		if got, err := again.Decode(b); err != nil || !reflect.DeepEqual(got, m) {
			t.Errorf("%+v came out as %+v after others, %v", m, got, err)
		}
		if len(b) > flows.MaxFrame {
			t.Errorf("a message of kind %d has %d bytes", m.Kind, len(b))
		}
		got, err := flows.Decode(b)
		if err != nil || !reflect.DeepEqual(got, m) {
			t.Errorf("%+v came out as %+v, %v", m, got, err)
		}
	}
	if full := len(flows.Encode(messages()[3])); full > 16*flows.MaxChanges {
		t.Errorf("%d connections take %d bytes: nothing is packed", flows.MaxChanges, full)
	}
}

func TestDecodeRefuses(t *testing.T) {
	valid, hello := flows.Encode(messages()[5]), flows.Encode(messages()[0])
	for name, b := range map[string][]byte{
		"nothing":         nil,
		"half a head":     valid[:10],
		"half a greeting": hello[:len(hello)-1],
		"half a body":     valid[:len(valid)-1],
		"another version": append([]byte{flows.Version + 1}, valid[1:]...),
		"another kind":    append([]byte{flows.Version, 99}, valid[2:]...),
		"another packing": append([]byte{flows.Version, byte(flows.Changes), 9}, valid[3:]...),
		"too many flows":  flows.Encode(flows.Message{Kind: flows.Changes, Changes: some(flows.MaxChanges + 1)}),
		"an unknown op":   flows.Encode(flows.Message{Kind: flows.Changes, Changes: []flows.Change{{Op: 9, Flow: some(1)[0].Flow}}}),
		"a bomb":          flows.Encode(flows.Message{Kind: flows.Changes, Changes: make([]flows.Change, 1<<20)}),
	} {
		if m, err := flows.Decode(b); err == nil {
			t.Errorf("%s was decoded: %+v", name, m)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, m := range messages() {
		f.Add(flows.Encode(m))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := flows.Decode(b)
		if err != nil {
			return
		}
		if len(m.Changes) > flows.MaxChanges {
			t.Fatalf("%d changes", len(m.Changes))
		}
		again, err := flows.Decode(flows.Encode(m))
		if err != nil || !reflect.DeepEqual(again, m) {
			t.Fatalf("%+v came out as %+v, %v", m, again, err)
		}
		if first, second := flows.Encode(m), flows.Encode(again); !bytes.Equal(first, second) {
			t.Fatalf("%x and %x are one message", first, second)
		}
	})
}
