package audit

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func addrs() *rapid.Generator[netip.Addr] {
	return rapid.Custom(func(t *rapid.T) netip.Addr {
		if rapid.Bool().Draw(t, "six") {
			return netip.AddrFrom16([16]byte{0: 0x20, 1: 1, 15: rapid.Byte().Draw(t, "byte")})
		}
		return netip.AddrFrom4([4]byte{10, 0, 0, rapid.Byte().Draw(t, "byte")})
	})
}

func moments() *rapid.Generator[time.Time] {
	return rapid.Custom(func(t *rapid.T) time.Time {
		return began.Add(time.Duration(rapid.IntRange(0, 1e6).Draw(t, "ms")) * time.Millisecond)
	})
}

func records() *rapid.Generator[Record] {
	return rapid.Custom(func(t *rapid.T) Record {
		text := rapid.StringOf(rapid.RuneFrom([]rune("az-\"\\\n\x7f<é世"))) // and what JSON escapes
		r := Record{Time: moments().Draw(t, "time"), Event: rapid.SampledFrom([]Event{StartEvent, EndEvent, HolderEvent, LostEvent}).Draw(t, "event"),
			Gateway: text.Draw(t, "gateway")}
		switch r.Event {
		case HolderEvent:
			r.VIP, r.Holder = addrs().Draw(t, "vip"), text.Draw(t, "holder")
			return r
		case LostEvent:
			r.Cause = text.Draw(t, "cause")
			if n := rapid.Uint64().Draw(t, "lost"); n > 0 {
				r.Lost = &n
			}
			return r
		}
		r.Route, r.Pod = text.Draw(t, "route"), Pod{text.Draw(t, "namespace"), text.Draw(t, "pod"), text.Draw(t, "uid"), text.Draw(t, "node")}
		r.Source, r.VIP, r.Destination = addrs().Draw(t, "source"), addrs().Draw(t, "vip"), addrs().Draw(t, "destination")
		r.SourcePort, r.Port, r.DestinationPort = rapid.Uint16().Draw(t, "sport"), rapid.Uint16().Draw(t, "port"), rapid.Uint16().Draw(t, "dport")
		r.Protocol = ProtocolName(rapid.Byte().Draw(t, "protocol"))
		if rapid.Bool().Draw(t, "started") {
			r.Start = moments().Draw(t, "start")
		}
		if r.Event == StartEvent {
			return r
		}
		r.Answered, r.TakenOver, r.Counted = rapid.Bool().Draw(t, "answered"), rapid.Bool().Draw(t, "taken"), rapid.Bool().Draw(t, "counted")
		if r.Counted {
			r.Sent, r.Received = Traffic{rapid.Uint64().Draw(t, "p"), rapid.Uint64().Draw(t, "b")}, Traffic{rapid.Uint64().Draw(t, "p"), rapid.Uint64().Draw(t, "b")}
		}
		r.Reason = rapid.SampledFrom([]Reason{Finished, Reset, Timeout, Stopped}).Draw(t, "reason")
		return r
	})
}

func TestARecordReadsAsItWasWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := records().Draw(t, "record")
		text := r.Append(nil)
		if !json.Valid(text) || bytes.IndexByte(text, '\n') != len(text)-1 {
			t.Fatalf("%q is not one line of JSON", text)
		}
		if got, err := Parse(text); err != nil || !reflect.DeepEqual(got, r) {
			t.Fatalf("%s reads as %+v, %v; written was %+v", text, got, err, r)
		}
	})
}

// Bytes that nobody counted are null; none at all are 0.
func TestUnknownIsNotZero(t *testing.T) {
	r := Record{Time: began, Event: EndEvent, Protocol: "tcp", Reason: Timeout}
	for counted, want := range map[bool]string{false: `"bytesSent":null,"bytesReceived":null,"packetsSent":null,"packetsReceived":null`, true: `"bytesSent":0,"bytesReceived":0`} {
		r.Counted = counted
		if text := r.Append(nil); !bytes.Contains(text, []byte(want)) || !bytes.Contains(text, []byte(`"start":null,"seconds":null`)) {
			t.Errorf("counted %t: %s lacks %s", counted, text, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	r := Record{Time: began, Event: EndEvent, Pod: Pod{"shop", "web", "u", "n1"}, Source: podAddr, VIP: theVIP, Port: 9, Destination: partner, Protocol: "tcp", Start: began, Counted: true, Reason: Reset}
	f.Add(r.Append(nil))
	f.Add([]byte(`{"time":"2026-11-21T14:00:00.000Z","event":"lost","gateway":"a","lost":null,"cause":"x"}`))
	f.Add([]byte(`{"time":"2026-11-21T14:00:00Z","event":"end","port":70000}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Parse(b)
		if err != nil {
			return
		}
		if again, err := Parse(r.Append(nil)); err != nil || again.Event != r.Event || again.Port != r.Port && (r.Event == StartEvent || r.Event == EndEvent) {
			t.Errorf("%q reads as %+v, and that, written, as %+v, %v", b, r, again, err)
		}
	})
}
