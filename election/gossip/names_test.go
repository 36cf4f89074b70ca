package gossip

import (
	"net/netip"
	"testing"
	"time"
)

var (
	addrA = netip.MustParseAddrPort("10.0.0.1:7946")
	addrB = netip.MustParseAddrPort("10.0.0.2:7946")
)

func nobodyAlive(string, netip.AddrPort) bool { return false }

func TestTheElderKeepsTheName(t *testing.T) {
	now := time.Now()
	elder, younger := namesake{addrB, now.Add(-time.Minute)}, namesake{addrA, now.Add(-time.Second)}
	for _, order := range [][]namesake{{elder, younger}, {younger, elder}} {
		n := newNames(addrA, now)
		for _, who := range order {
			n.admit("n1", who, nobodyAlive, now)
		}
		if got := n.bound["n1"].addr; got != elder.addr {
			t.Errorf("heard in order %v: the name went to %s", order, got)
		}
		contested, ok := n.admit("n1", younger, nobodyAlive, now)
		if ok || contested != elder.addr {
			t.Errorf("the younger is admitted: %v, contested %s", ok, contested)
		}
	}
}

// Both sides must come to one opinion however long a message took.
func TestNamesakesOfOneAgeAgree(t *testing.T) {
	now := time.Now()
	a, b := newNames(addrA, now), newNames(addrB, now)
	const transit = 100 * time.Millisecond
	for _, skew := range []time.Duration{-200 * time.Millisecond, 0, 200 * time.Millisecond} {
		a.muted, b.muted = time.Time{}, time.Time{}
		// Each sees the other as younger by the transit time.
		a.own(namesake{addrB, now.Add(skew + transit)}, now)
		b.own(namesake{addrA, now.Add(-skew + transit)}, now)
		if a.muted.After(now) == b.muted.After(now) {
			t.Errorf("skew %s: muted are a: %v, b: %v; want one", skew, a.muted.After(now), b.muted.After(now))
		}
	}
}

func TestANameIsFreeOnceItsMemberIsSilentAndBuried(t *testing.T) {
	now := time.Now()
	n := newNames(addrA, now)
	old := namesake{addrA, now.Add(-time.Hour)}
	moved := namesake{addrB, now}
	n.admit("n1", old, nobodyAlive, now)
	if _, ok := n.admit("n1", moved, nobodyAlive, now.Add(nameHold/2)); ok {
		t.Error("taken over while just heard elsewhere")
	}
	later := now.Add(2 * nameHold)
	if _, ok := n.admit("n1", moved, func(_ string, a netip.AddrPort) bool { return a == addrA }, later); ok {
		t.Error("taken over while memberlist holds the old one alive")
	}
	if contested, ok := n.admit("n1", moved, nobodyAlive, later); !ok || contested.IsValid() {
		t.Errorf("a silent and buried member's name: admitted %v, contested %v", ok, contested)
	}
	n.release("n1")
	if _, ok := n.admit("n1", old, nobodyAlive, later); !ok {
		t.Error("a name given up is not free")
	}
}
