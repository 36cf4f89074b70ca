package gateway

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// step is what one Settle sees and should say.
type step struct {
	at         time.Duration
	pods       string // name/uid of those at the address; a final ! is terminating
	behind     Home   // zero for nowhere
	interfaces []int
	saved      bool // the view is not the API's own
	closed     bool // no pod has come in since the boot
	want       string
	again      time.Duration
}

func TestTenancy(t *testing.T) {
	addr := netip.MustParseAddr("10.244.1.10")
	port := func(i int) Home { return Home{Interface: i} }
	route := func(i int) Home { return Home{Interface: i, Routed: true} }
	s := time.Second
	for name, steps := range map[string][]step{
		"a bridge that forgot a silent pod": {
			{pods: "a/1", behind: port(5), interfaces: []int{5}, want: "a/1"},
			{pods: "a/1", interfaces: []int{5}, want: "a/1"},
			{pods: "a/1", behind: port(5), interfaces: []int{5}, want: "a/1"},
		},
		"the next pod behind a bridge, before the API shows it": {
			{pods: "a/1", behind: port(5), interfaces: []int{5}, want: "a/1"},
			{pods: "a/1", interfaces: nil, want: "left a/1"},
			{at: 1 * s, pods: "a/1", behind: port(6), interfaces: []int{6}, want: "", again: ReturnAfter},
			{at: 3 * s, pods: "a/1!", behind: port(6), interfaces: []int{6}, want: ""},
			{at: 60 * s, pods: "a/1!", behind: port(6), interfaces: []int{6}, want: ""},
			{at: 61 * s, pods: "a/1! b/2", behind: port(6), interfaces: []int{6}, want: "b/2"},
			{at: 62 * s, pods: "b/2", behind: port(6), interfaces: []int{6}, want: "b/2"},
			{at: 63 * s, pods: "b/2", interfaces: nil, want: "left b/2"},
		},
		"the next pod at once, in one step": {
			{pods: "a/1", behind: port(5), interfaces: []int{5}, want: "a/1"},
			{pods: "a/1", behind: port(6), interfaces: []int{6}, want: "left a/1", again: ReturnAfter},
		},
		"another claims the address while the pod's port lives": {
			{pods: "a/1", behind: port(5), interfaces: []int{5, 6}, want: "a/1"},
			{pods: "a/1", behind: port(6), interfaces: []int{5, 6}, want: "a/1"},
			{pods: "a/1", behind: port(6), interfaces: []int{6}, want: "left a/1", again: ReturnAfter},
		},
		"a route taken away and put back": {
			{pods: "a/1", behind: route(5), interfaces: []int{5}, want: "a/1"},
			{at: 1 * s, pods: "a/1", interfaces: []int{5}, want: "left a/1"},
			{at: 2 * s, pods: "a/1!", behind: route(5), interfaces: []int{5}, want: "back a/1"},
		},
		"a route to another interface": {
			{pods: "a/1", behind: route(5), interfaces: []int{5}, want: "a/1"},
			{pods: "a/1", behind: route(6), interfaces: []int{5, 6}, want: "left a/1", again: ReturnAfter},
		},
		"a sandbox made anew": {
			{pods: "a/1", behind: route(5), interfaces: []int{5}, want: "a/1"},
			{at: 1 * s, pods: "a/1", want: "left a/1"},
			{at: 100 * s, pods: "a/1", behind: route(6), interfaces: []int{6}, want: "", again: ReturnAfter},
			{at: 104 * s, pods: "a/1", behind: route(6), interfaces: []int{6}, want: "", again: 6 * s},
			{at: 105 * s, pods: "a/1", behind: route(7), interfaces: []int{7}, want: "", again: ReturnAfter},
			{at: 115 * s, pods: "a/1", behind: route(7), interfaces: []int{7}, want: "back a/1"},
			{at: 116 * s, pods: "a/1", want: "left a/1"},
		},
		"nobody comes back on the word of a saved view": {
			{pods: "a/1", behind: route(5), interfaces: []int{5}, want: "a/1", saved: true},
			{pods: "a/1", want: "left a/1", saved: true},
			{at: 1 * s, pods: "a/1", behind: route(6), interfaces: []int{6}, saved: true},
			{at: 60 * s, pods: "a/1", behind: route(6), interfaces: []int{6}, saved: true},
			{at: 61 * s, pods: "a/1", behind: route(6), interfaces: []int{6}, want: "back a/1"},
		},
		"a pod that the network never knew": {
			{pods: "a/1", want: "a/1"},
			{pods: "a/1", interfaces: []int{5}, want: "a/1"},
			{pods: "a/1", behind: port(6), interfaces: []int{6}, want: "a/1"},
			{pods: "a/1", want: "left a/1"},
		},
		"an address of before a boot that the next pod has": {
			{pods: "a/1", want: "", saved: true, closed: true, again: ReturnAfter},
			{pods: "a/1", want: "", closed: true, again: UnseenAfter},
			{at: 1 * s, pods: "a/1", behind: route(5), interfaces: []int{5}, want: "", again: ReturnAfter},
			{at: 2 * s, pods: "a/1!", behind: route(5), interfaces: []int{5}, want: ""},
			{at: 3 * s, pods: "b/2", behind: route(5), interfaces: []int{5}, want: "b/2"},
			{at: 4 * s, pods: "b/2", want: "left b/2"},
		},
		"an address of before a boot that its pod has again": {
			{pods: "a/1", closed: true, want: "", again: ReturnAfter},
			{at: 5 * s, pods: "a/1", want: "", again: 55 * s},
			{at: 6 * s, pods: "a/1", behind: port(5), interfaces: []int{5}, want: "", again: ReturnAfter},
			{at: 16 * s, pods: "a/1", behind: port(5), interfaces: []int{5}, want: "back a/1"},
			{at: 17 * s, pods: "a/1", want: "left a/1"},
			{at: 99 * s, pods: "a/1", want: ""},
		},
		"the same on a network that shows nothing": {
			{pods: "a/1", closed: true, want: "", again: ReturnAfter},
			{at: 59 * s, pods: "a/1", want: "", again: 1 * s},
			{at: 60 * s, pods: "a/1", want: "back a/1"},
			{at: 61 * s, pods: "a/1", want: "a/1"},
		},
		"a new pod in the view of an address that has just been left": {
			{pods: "a/1", behind: port(5), interfaces: []int{5}, want: "a/1"},
			{pods: "b/2", interfaces: nil, want: "b/2"},
			{pods: "b/2", behind: port(6), interfaces: []int{6}, want: "b/2"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var tenancy Tenancy
			start := time.Now()
			for i, st := range steps {
				network := Network{Behind: map[netip.Addr]Home{}, Interfaces: map[int]bool{}, Closed: st.closed}
				if st.behind.Interface != 0 {
					network.Behind[addr] = st.behind
				}
				for _, n := range st.interfaces {
					network.Interfaces[n] = true
				}
				var pods []Pod
				for _, text := range strings.Fields(st.pods) {
					name, uid, _ := strings.Cut(strings.TrimSuffix(text, "!"), "/")
					pods = append(pods, Pod{Namespace: "x", Name: name, UID: uid, Addrs: []netip.Addr{addr}, Terminating: strings.HasSuffix(text, "!")})
				}
				got := tenancy.Settle(pods, network, !st.saved, start.Add(st.at))
				if len(got.Pods) != len(pods) {
					t.Fatalf("step %d: %d pods of %d", i, len(got.Pods), len(pods))
				}
				if said := spell(got); said != st.want || got.Again != st.again {
					t.Errorf("step %d: %q, again in %v; want %q, %v", i, said, got.Again, st.want, st.again)
				}
			}
		})
	}
}

// spell names who has an address, or who has lost it or got it back.
func spell(s Settled) string {
	for _, who := range s.Left {
		return "left " + strings.TrimPrefix(who.Pod, "x/")
	}
	for _, who := range s.Back {
		return "back " + strings.TrimPrefix(who.Pod, "x/")
	}
	var out []string
	for _, p := range s.Pods {
		if len(p.Addrs) > 0 {
			out = append(out, fmt.Sprintf("%s/%s", p.Name, p.UID))
		}
	}
	return strings.Join(out, " ")
}

func TestTenancyLeavesTheSnapshotAlone(t *testing.T) {
	addr := netip.MustParseAddr("10.244.1.10")
	pods := []Pod{{Namespace: "x", Name: "a", Addrs: []netip.Addr{addr}}, {Name: "host", HostNetwork: true, Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}}
	var tenancy Tenancy
	tenancy.Settle(pods, Network{Behind: map[netip.Addr]Home{addr: {Interface: 5}}, Interfaces: map[int]bool{5: true}}, true, time.Now())
	got := tenancy.Settle(pods, Network{}, true, time.Now())
	if len(got.Left) != 1 || len(got.Pods[0].Addrs) != 0 || len(pods[0].Addrs) != 1 {
		t.Errorf("left %v; settled %v, the snapshot's %v", got.Left, got.Pods[0].Addrs, pods[0].Addrs)
	}
	if len(got.Pods) != 2 || len(got.Pods[1].Addrs) != 1 {
		t.Errorf("a pod on the node's network lost its address: %v", got.Pods)
	}
}

func TestPlanTakes(t *testing.T) {
	plan := Plan{Routes: []PlannedRoute{{Destinations: []Destination{
		{CIDR: netip.MustParsePrefix("203.0.113.0/24"), Except: []netip.Prefix{netip.MustParsePrefix("203.0.113.9/32")}, Ports: []Port{{TCP, 443, 444}}},
		{CIDR: netip.MustParsePrefix("198.51.100.0/24")},
	}}}}
	for _, c := range []struct {
		dst      string
		protocol Protocol
		port     uint16
		want     bool
	}{
		{"203.0.113.5", TCP, 443, true}, {"203.0.113.5", TCP, 444, true}, {"203.0.113.5", TCP, 445, false}, {"203.0.113.5", UDP, 443, false},
		{"203.0.113.9", TCP, 443, false}, {"198.51.100.7", 1, 0, true}, {"192.0.2.1", TCP, 443, false},
	} {
		if got := plan.Takes(netip.MustParseAddr(c.dst), c.protocol, c.port); got != c.want {
			t.Errorf("%s protocol %d port %d: %t", c.dst, c.protocol, c.port, got)
		}
	}
}
