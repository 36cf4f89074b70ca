package iptables

import (
	"net/netip"
	"testing"
)

// TestWhatFreesChangesLast checks that no source is freed before the rules and the
// other sets know it, and none is known no more while it is free.
func TestWhatFreesChangesLast(t *testing.T) {
	addr := netip.MustParseAddr
	p := program{table: "sally_t", sets: []set{
		{name: "free", addrs: []netip.Addr{addr("10.0.0.2")}, frees: true},
		{name: "other", addrs: []netip.Addr{addr("10.0.0.2")}},
		{name: "new", addrs: []netip.Addr{addr("10.0.0.2")}, frees: true},
	}}
	held := func() *heldSet { return &heldSet{kind: "hash:ip inet", members: map[string]bool{"10.0.0.1": true}} }
	before, after := p.setChanges(map[string]*heldSet{"free": held(), "other": held()})
	const create = "create new hash:ip family inet maxelem 1048576 hashsize 64\n" // no rule names it yet
	if want := "del free 10.0.0.1\nadd other 10.0.0.2\n" + create + "add new 10.0.0.2\n"; before != want {
		t.Errorf("before the rules:\n%swant:\n%s", before, want)
	}
	if want := "add free 10.0.0.2\ndel other 10.0.0.1\n"; after != want {
		t.Errorf("after the rules:\n%swant:\n%s", after, want)
	}
}
