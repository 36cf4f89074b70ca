package gateway

import (
	"net/netip"
	"slices"
	"testing"
)

func TestStandingEndsWithThePod(t *testing.T) {
	a, b := netip.MustParseAddr("10.244.1.10"), netip.MustParseAddr("10.244.1.11")
	pod := func(name, uid string, addrs ...netip.Addr) Pod {
		return Pod{Namespace: "shop", Name: name, UID: uid, Addrs: addrs}
	}
	host := pod("host", "9", a)
	host.HostNetwork = true
	done := pod("web", "1", a)
	done.Ended = true
	for _, c := range []struct {
		name          string
		before, after []Pod
		ended         bool
	}{
		{"it stays", []Pod{pod("web", "1", a)}, []Pod{pod("web", "1", a)}, false},
		{"it is deleted", []Pod{pod("web", "1", a)}, nil, true},
		{"another pod has its address", []Pod{pod("web", "1", a)}, []Pod{pod("db", "2", a)}, true},
		{"another pod of its name has it", []Pod{pod("web", "1", a)}, []Pod{pod("web", "2", a)}, true},
		{"it moves to another address", []Pod{pod("web", "1", a)}, []Pod{pod("web", "1", b)}, true},
		{"it has ended", []Pod{pod("web", "1", a)}, []Pod{done}, true},
		{"a second pod claims its address", []Pod{pod("web", "1", a)}, []Pod{pod("web", "1", a), pod("db", "2", a)}, true},
		{"two claim it, in another order", []Pod{pod("web", "1", a), pod("db", "2", a)}, []Pod{pod("db", "2", a), pod("web", "1", a)}, false},
		{"nobody had it", nil, []Pod{pod("web", "1", a)}, false},
		{"only its node's own network", []Pod{host}, nil, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			before, now := StandingOf(c.before), StandingOf(c.after)
			if got := now.Ended(before, a); got != c.ended {
				t.Errorf("Ended is %v", got)
			}
			if got := now.AnyEnded(before); got != c.ended {
				t.Errorf("AnyEnded is %v", got)
			}
			if over := now.Over(before); slices.Contains(over, a) != c.ended {
				t.Errorf("Over gives %v", over)
			}
		})
	}
}

func TestWithNothingBeforeWhatBelongsToNobodyHasEnded(t *testing.T) {
	a, b := netip.MustParseAddr("10.244.1.10"), netip.MustParseAddr("10.244.1.11")
	now := StandingOf([]Pod{{Name: "web", UID: "1", Addrs: []netip.Addr{a}}})
	if now.Ended(nil, a) || !now.Ended(nil, b) || !now.AnyEnded(nil) {
		t.Error("the first look must end the rights of addresses of no pod, and of no others")
	}
}
