package layer2

import (
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// The node agent's view: the gateway's process is stopped or killed while its kernel
// has the address.
func TestReaperRemovesWhatNobodyHolds(t *testing.T) {
	a := segment(t, "a")["a"]
	a.install(t)
	agent := host(t, a.ns)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		done <- NewReaper(agent.Host, agent.fence, func() []netip.Addr { return only }, slog.New(slog.DiscardHandler)).Run(ctx)
	}()

	sh(t, a.ns, "ip addr add 192.0.2.66/32 dev eth0")
	for range 2 { // the watch goes back to sleep and wakes again
		must(t, a.fence.Renew(only, time.Minute))
		must(t, a.say.Claim(v))
		for renewed := range 20 {
			<-time.After(10 * time.Millisecond) // twice the grace and four looks long
			if !a.has(t, addr) {
				t.Fatalf("removed under a living holder, renewal %d", renewed)
			}
			must(t, a.fence.Renew(only, time.Minute))
		}
		must(t, a.fence.Renew(only, 100*time.Millisecond)) // the holder's last
		eventually(t, "the address is removed", func() bool { return !a.has(t, addr) })
		if held, err := a.fence.Held(); err != nil || len(held) != 0 {
			t.Errorf("removed while held: %v, %v", held, err)
		}
	}
	if !a.has(t, netip.MustParseAddr("192.0.2.66")) {
		t.Error("an address that is not ours was removed")
	}
	// Without a fence there is no holder either.
	must(t, a.fence.Renew(only, 10*time.Second))
	must(t, a.say.Claim(v))
	must(t, a.fence.Remove())
	eventually(t, "the address is removed with the fence gone", func() bool { return !a.has(t, addr) })
	cancel()
	must(t, <-done)
}

func TestReapAtStart(t *testing.T) {
	a := segment(t, "a")["a"]
	a.install(t)
	must(t, a.fence.Renew(only, time.Minute))
	must(t, a.say.Claim(v))
	next := host(t, a.ns) // the process after a kill -9
	gone, err := next.Reap(only)
	if err != nil || len(gone) != 1 || gone[0] != addr || a.has(t, addr) {
		t.Errorf("reaped %v, %v", gone, err)
	}
	gone, err = next.Reap(only)
	if err != nil || len(gone) != 0 {
		t.Errorf("reaped again %v, %v", gone, err)
	}
}

func TestCleanupLeavesTheHostAsItWas(t *testing.T) {
	a := segment(t, "a")["a"]
	sh(t, a.ns, `nft 'table arp mine { chain c { type filter hook output priority 0; }; }; table ip mine { set s { type ipv4_addr; elements = { 192.0.2.10 }; }; }'`)
	sh(t, a.ns, "ip addr add 198.51.100.7/32 dev lo")
	state := func() string { return sh(t, a.ns, "nft list ruleset; ip addr; ip route show table all; ip link") }
	before := state()
	a.install(t)
	must(t, a.fence.Renew(only, time.Minute))
	must(t, a.say.Claim(v))
	if s := state(); !strings.Contains(s, "sally_fence") || !strings.Contains(s, "192.0.2.10/32") {
		t.Fatalf("nothing to clean up: %s", s)
	}
	a.say.Close()
	for range 2 {
		must(t, a.Cleanup(only))
		if after := state(); after != before {
			t.Errorf("before:\n%s\nafter:\n%s", before, after)
		}
	}
}
