package layer2

import (
	"context"
	"net/netip"
	"slices"
	"testing"
	"time"
)

func TestWatchTellsWhyAVIPCannotBeReached(t *testing.T) {
	a := segment(t, "a")["a"]
	type state struct{ iface, reason string }
	states := make(chan state, 64)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		done <- a.Watch(ctx, []string{"eth0", "eth7"}, func(iface string, up bool, reason string) {
			if up != (reason == "") {
				t.Errorf("%s: up is %v, reason %q", iface, up, reason)
			}
			states <- state{iface, reason}
		})
	}()
	next := func(want ...state) {
		t.Helper()
		for {
			select {
			case got := <-states:
				if slices.Contains(want[:len(want)-1], got) {
					continue // a step on the way that the kernel may or may not show
				}
				if got != want[len(want)-1] {
					t.Errorf("told %+v, want %+v", got, want[len(want)-1])
				}
				return
			case <-time.After(10 * time.Second):
				t.Fatalf("not told %+v", want)
			}
		}
	}
	next(state{"eth0", ""})
	next(state{"eth7", "does not exist"})
	sh(t, a.bridge, "ip link set ua down")
	next(state{"eth0", "has no carrier"})
	sh(t, a.bridge, "ip link set ua up")
	next(state{"eth0", "is in operational state lower-layer-down"}, state{"eth0", ""})
	sh(t, a.ns, "ip link set eth0 down")
	next(state{"eth0", "is set down"})
	sh(t, a.ns, "ip link add eth7 type veth peer name eth8 && ip link set eth8 up && ip link set eth7 up")
	next(state{"eth7", "is set down"}, state{"eth7", "has no carrier"}, state{"eth7", ""})
	sh(t, a.ns, "ip link del eth7")
	next(state{"eth7", "is set down"}, state{"eth7", "has no carrier"}, state{"eth7", "does not exist"})
	cancel()
	must(t, <-done)
}

func TestInterfacesAreWhatResolveWants(t *testing.T) {
	a := segment(t, "a")["a"]
	all, err := a.Interfaces()
	must(t, err)
	for _, i := range all {
		if i.Name == "eth0" {
			if !slices.Contains(i.Prefixes, netip.MustParsePrefix("192.0.2.1/24")) {
				t.Errorf("eth0 has %v", i.Prefixes)
			}
			return
		}
	}
	t.Errorf("no eth0 in %v", all)
}
