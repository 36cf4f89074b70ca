package layer2

import (
	"net/netip"
	"testing"
	"time"
)

// passed is what a pass was told last.
type passed map[netip.Addr]time.Duration

func (p passed) Until(addr netip.Addr, until time.Duration) error {
	p[addr] = until
	return nil
}

// A pass is never open when the fence may be closed, nor for an address that is not to be used.
func TestAPassIsOpenNoLongerThanTheFence(t *testing.T) {
	a := segment(t, "a")["a"]
	a.install(t)
	p := passed{}
	must(t, a.fence.SetPass(p))
	closed := func(when string) {
		t.Helper()
		if until, told := p[addr]; !told || until != 0 {
			t.Errorf("%s the pass is open until %v, %t", when, until, told)
		}
	}
	open := func(when string) {
		t.Helper()
		held, err := a.fence.Held()
		must(t, err)
		if closes := Boottime() + held[addr]; p[addr] == 0 || p[addr] > closes {
			t.Errorf("%s the pass is open until %v, the fence until %v", when, p[addr], closes)
		}
	}
	closed("before anything")
	must(t, a.fence.Renew(only, 5*time.Second))
	closed("before the address is in place")
	must(t, a.fence.Ajar(only, true))
	open("with the address")
	must(t, a.fence.Renew(only, time.Second)) // less than is left
	open("renewed for less")
	must(t, a.fence.Ajar(only, false))
	closed("without the address")
	must(t, a.fence.Renew(only, 5*time.Second))
	closed("renewed without the address")
	must(t, a.fence.Ajar(only, true))
	must(t, a.fence.Close(only))
	closed("behind a fence that is closed")
	must(t, a.fence.Renew(only, 5*time.Second))
	open("opened again")
	other := passed{}
	must(t, a.fence.SetPass(other))
	if other[addr] != p[addr] {
		t.Errorf("another pass is open until %v, want %v", other[addr], p[addr])
	}
	p = other
	a.install(t)
	closed("with the fence made anew")
}
