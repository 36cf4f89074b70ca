package gossip

import (
	"errors"
	"net/netip"
	"reflect"
	"testing"
	"time"
)

func TestFrameRoundTrip(t *testing.T) {
	for _, f := range []frame{
		{kind: data, age: time.Hour, addr: netip.MustParseAddrPort("10.0.0.1:7946"), name: "n1", payload: []byte("x")},
		{kind: leaving, age: time.Millisecond, addr: netip.MustParseAddrPort("[fd00::1]:1"), name: "n-é", payload: []byte{}},
	} {
		b := f.append(nil)
		if want := frameOverhead(f.name, f.addr) + len(f.payload); len(b) != want {
			t.Errorf("%v takes %d bytes, frameOverhead says %d", f, len(b), want)
		}
		got, err := parseFrame(b)
		if err != nil || !reflect.DeepEqual(got, f) {
			t.Errorf("parseFrame(append(%v)) = %v, %v", f, got, err)
		}
		for n := range len(b) - len(f.payload) {
			if _, err := parseFrame(b[:n]); err == nil {
				t.Errorf("%v cut to %d bytes is accepted", f, n)
			}
		}
	}
	other := frame{name: "n1", addr: netip.MustParseAddrPort("10.0.0.1:1")}.append(nil)
	other[0]++
	if _, err := parseFrame(other); !errors.Is(err, errVersion) {
		t.Errorf("a frame of another version: %v, want %v", err, errVersion)
	}
}

// The age of a member that runs for more than 49 days must not start again at zero.
func TestFrameAgeSaturates(t *testing.T) {
	f := frame{name: "n1", addr: netip.MustParseAddrPort("10.0.0.1:1"), age: 1000 * 24 * time.Hour}
	got, err := parseFrame(f.append(nil))
	if err != nil || got.age < 49*24*time.Hour {
		t.Errorf("age of 1000 days is read as %s, %v", got.age, err)
	}
}

func FuzzParseFrame(f *testing.F) {
	f.Add(frame{kind: data, age: time.Second, addr: netip.MustParseAddrPort("10.0.0.1:7946"), name: "n1", payload: []byte("x")}.append(nil))
	f.Add(frame{kind: presence, addr: netip.MustParseAddrPort("[fd00::1]:7946"), name: "n2"}.append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := parseFrame(b)
		if err != nil {
			return
		}
		again, err := parseFrame(got.append(nil))
		if err != nil || !reflect.DeepEqual(again, got) {
			t.Errorf("%v is read again as %v, %v", got, again, err)
		}
	})
}
