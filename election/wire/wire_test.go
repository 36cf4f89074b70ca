package wire

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"pgregory.net/rapid"

	"github.com/sallyport/sallyport/election"
)

func message() election.Message {
	return election.Message{
		From: "n1", Incarnation: 1 << 63, Replicas: 3, Timing: election.Profiles["default"], Voters: []string{"n1", "n2"}, VIPs: []string{"192.0.2.10", "192.0.2.11"},
		Entries: []election.Entry{
			{Kind: election.Heartbeat, VIP: "192.0.2.10", Term: 7, Sent: time.Hour},
			{Kind: election.Refuse, VIP: "2001:db8::10", Term: 9, Wait: time.Millisecond, For: 1<<64 - 1},
		},
	}
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		msg := message()
		msg.Incarnation = rapid.Uint64Min(1).Draw(t, "incarnation")
		msg.Leaving = rapid.Bool().Draw(t, "leaving")
		msg.Timing.Drift = rapid.Float64Range(0, 0.1).Draw(t, "drift")
		msg.Entries[0].Term = rapid.Uint64Max(election.MaxTerm).Draw(t, "term")
		msg.Entries[0].Sent = time.Duration(rapid.Int64Min(0).Draw(t, "sent"))
		data, err := Encode(msg)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Decode(data)
		if err != nil || !reflect.DeepEqual(got, msg) {
			t.Fatalf("%+v became %+v, %v", msg, got, err)
		}
	})
}

// A full message must fit memberlist's UDP packet (1400 bytes less its own) or be
// sent over TCP, a round trip of connecting later.
func TestFullMessageFitsOneDatagram(t *testing.T) {
	msg := message()
	for len(msg.Entries) < election.MaxEntries {
		msg.Entries = append(msg.Entries, election.Entry{Kind: election.Ack, VIP: "255.255.255.255", Term: 1 << 30, Sent: 1000 * time.Hour, For: 1<<64 - 1})
	}
	data, err := Encode(msg)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d entries are %d bytes", len(msg.Entries), len(data))
	if len(data) > 1300 {
		t.Errorf("%d entries are %d bytes", len(msg.Entries), len(data))
	}
}

func TestDecodeRefuses(t *testing.T) {
	change := func(f func(*election.Message)) []byte {
		msg := message()
		f(&msg)
		data, err := cbor.Marshal(msg)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	whole := change(func(*election.Message) {})
	unknown, _ := cbor.Marshal(map[int]any{1: "n1", 2: 1, 3: 3, 99: true})
	for name, tt := range map[string]struct {
		data []byte
		want string
	}{
		"nothing":        {nil, "EOF"},
		"half":           {whole[:len(whole)/2], "EOF"},
		"more":           {append(whole[:len(whole):len(whole)], 0), "extraneous"},
		"too large":      {make([]byte, MaxSize+1), "are more than"},
		"unknown field":  {unknown, "unknown field"},
		"a number":       {[]byte{1}, "cannot unmarshal"},
		"no sender":      {change(func(m *election.Message) { m.From = "" }), "name has 0 bytes"},
		"long sender":    {change(func(m *election.Message) { m.From = strings.Repeat("n", 256) }), "name has 256 bytes"},
		"no incarnation": {change(func(m *election.Message) { m.Incarnation = 0 }), "incarnation is zero"},
		"no replicas":    {change(func(m *election.Message) { m.Replicas = 0 }), "replicas is 0"},
		"negative lease": {change(func(m *election.Message) { m.Timing.Lease = -1 }), "timing is"},
		"many voters":    {change(func(m *election.Message) { m.Voters = make([]string, 40) }), "40 voters"},
		"many VIPs":      {change(func(m *election.Message) { m.VIPs = make([]string, 65) }), "65 VIPs"},
		"nameless VIP":   {change(func(m *election.Message) { m.VIPs[0] = "" }), "VIP has 0 bytes"},
		"nameless voter": {change(func(m *election.Message) { m.Voters[0] = "" }), "voter's name"},
		"many entries":   {change(func(m *election.Message) { m.Entries = make([]election.Entry, 25) }), "25 entries"},
		"unknown kind":   {change(func(m *election.Message) { m.Entries[1].Kind = 11 }), "entry 1"},
		"long heir":      {change(func(m *election.Message) { m.Entries[0].Heir = strings.Repeat("n", 256) }), "entry 0"},
		"far term":       {change(func(m *election.Message) { m.Entries[0].Term = election.MaxTerm + 1 }), "entry 0"},
		"negative wait":  {change(func(m *election.Message) { m.Entries[1].Wait = -1 }), "entry 1"},
	} {
		if _, err := Decode(tt.data); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got error %v, want one with %q", name, err, tt.want)
		}
	}
}

// FuzzDecode: what is accepted can be said again, and means the same.
func FuzzDecode(f *testing.F) {
	data, err := Encode(message())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte{0xa0})
	f.Fuzz(func(t *testing.T, data []byte) {
		msg, err := Decode(data)
		if err != nil {
			return
		}
		again, err := Encode(msg)
		if err != nil {
			t.Fatalf("encode what was decoded: %v", err)
		}
		if got, err := Decode(again); err != nil || !reflect.DeepEqual(got, msg) {
			t.Fatalf("%+v became %+v, %v", msg, got, err)
		}
	})
}
