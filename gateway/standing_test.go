package gateway

import (
	"maps"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestStandingEndsWithThePod(t *testing.T) {
	a, b := netip.MustParseAddr("10.244.1.10"), netip.MustParseAddr("10.244.1.11")
	pod := func(name, uid string, addrs ...netip.Addr) Pod {
		return Pod{Namespace: "shop", Name: name, UID: uid, Addrs: addrs}
	}
	leaving := func(name, uid string, addrs ...netip.Addr) Pod {
		p := pod(name, uid, addrs...)
		p.Terminating = true
		return p
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
		{"it is being deleted", []Pod{pod("web", "1", a)}, []Pod{leaving("web", "1", a)}, false},
		{"another pod has its address while it is being deleted", []Pod{leaving("web", "1", a)}, []Pod{leaving("web", "1", a), pod("db", "2", a)}, true},
		{"who had its address before is gone at last", []Pod{leaving("web", "1", a), pod("db", "2", a)}, []Pod{pod("db", "2", a)}, false},
		{"its heir is gone before it", []Pod{leaving("web", "1", a), pod("db", "2", a)}, []Pod{leaving("web", "1", a)}, true},
		{"one of two that are being deleted goes", []Pod{leaving("web", "1", a), leaving("db", "2", a)}, []Pod{leaving("db", "2", a)}, true},
		{"nobody had it", nil, []Pod{pod("web", "1", a)}, false},
		{"only its node's own network", []Pod{host}, nil, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			before, now := StandingOf(c.before), StandingOf(c.after)
			if got := now.Ended(before, a); got != c.ended {
				t.Errorf("Ended is %v", got)
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
	if now.Ended(nil, a) || !now.Ended(nil, b) {
		t.Error("the first look must end the rights of addresses of no pod, and of no others")
	}
}

// TestStandingFollowed goes from view to view as if it began anew with each.
func TestStandingFollowed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pods := drawSnapshot(t).Pods
		s := StandingOf(pods)
		for range rapid.IntRange(1, 5).Draw(t, "views") {
			next, other := slices.Clone(pods), drawSnapshot(t).Pods
			switch n := len(next); {
			case n > 0 && rapid.Bool().Draw(t, "one goes"): // as in a table: the last takes its place
				next[rapid.IntRange(0, n-1).Draw(t, "which")] = next[n-1]
				next = next[:n-1]
			case n > 0 && len(other) > 0 && rapid.Bool().Draw(t, "one changes"):
				next[rapid.IntRange(0, n-1).Draw(t, "which")] = other[0]
			case n > 0 && rapid.Bool().Draw(t, "one becomes another"):
				p := &next[rapid.IntRange(0, n-1).Draw(t, "which")]
				switch rapid.IntRange(0, 4).Draw(t, "how") {
				case 0:
					p.UID += "+"
				case 1:
					p.HostNetwork = !p.HostNetwork
				case 2:
					p.Ended = !p.Ended
				case 3:
					p.Terminating = !p.Terminating
				default:
					p.Namespace += "+"
				}
			default:
				next = append(next, other...)
			}
			want, ended := StandingOf(next), Standing{}
			for _, addr := range want.Over(s) {
				ended[addr] = s[addr]
			}
			if got := s.Follow(pods, next); !maps.Equal(got, ended) {
				t.Fatalf("from %v to %v\n%v\nhave ended, want\n%v", pods, next, got, ended)
			}
			if !maps.Equal(s, want) {
				t.Fatalf("from %v to %v it is\n%v\nwant\n%v", pods, next, s, want)
			}
			pods = next
		}
	})
}

// TestReroutedIsWhatANewLookWouldSay compares the routes of every address by name.
func TestReroutedIsWhatANewLookWouldSay(t *testing.T) {
	names := func(p Plan) map[netip.Addr]string {
		all := map[netip.Addr]string{}
		for _, pod := range p.Pods {
			for _, r := range pod.Routes {
				all[pod.Addr] += p.Routes[r].Name + " "
			}
		}
		return all
	}
	rapid.Check(t, func(t *rapid.T) {
		s := drawSnapshot(t)
		for range 10 {
			before, _ := Build(s, nil)
			switch n := len(s.Routes); {
			case n > 0 && rapid.Bool().Draw(t, "a route goes"): // which moves those behind it
				s.Routes = slices.Delete(slices.Clone(s.Routes), 0, 1)
			case rapid.Bool().Draw(t, "pods come"):
				s.Pods = append(slices.Clone(s.Pods), drawSnapshot(t).Pods...)
			default:
				s = drawSnapshot(t)
			}
			now, _ := Build(s, nil)
			had, want := names(before), []netip.Addr(nil)
			for addr, routes := range names(now) {
				if had[addr] != routes {
					want = append(want, addr)
				}
			}
			if got := now.Rerouted(before); !slices.Equal(got, SortedAddrs(want)) {
				t.Fatalf("from %v\nto %v\nit is %v, want %v", before.Pods, now.Pods, got, want)
			}
		}
	})
}
