package layer2

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestFenceSilentAnsweringExpiring(t *testing.T) {
	s := segment(t, "a", "b")
	a, b := s["a"], s["b"]
	sh(t, a.ns, "ip addr add 192.0.2.10/32 dev eth0")
	if got := b.asks(t); got != a.mac {
		t.Fatalf("without a fence %q answers, want %s: the test sees nothing", got, a.mac)
	}
	a.install(t)
	if got := b.asks(t); got != "" {
		t.Errorf("fence closed: %s answers", got)
	}
	must(t, a.fence.Renew(only, 10*time.Second))
	if got := b.asks(t); got != a.mac {
		t.Errorf("fence open: %q answers, want %s", got, a.mac)
	}
	must(t, a.fence.Close(only))
	if got := b.asks(t); got != "" || a.fence.Open(addr) {
		t.Errorf("fence closed again: %s answers", got)
	}
	must(t, a.fence.Renew(only, 10*time.Second))
	must(t, a.fence.Renew(only, 200*time.Millisecond)) // shorter than what is left
	held, err := a.fence.Held()
	if left := held[addr]; err != nil || left > 200*time.Millisecond {
		t.Fatalf("renewed for 200 ms, held for %v, %v", held, err)
	}
	eventually(t, "the kernel closes the fence by itself", func() bool {
		held, err := a.fence.Held()
		must(t, err)
		return len(held) == 0
	})
	if got := b.asks(t); got != "" || a.fence.Open(addr) {
		t.Errorf("fence expired: %s answers", got)
	}
	must(t, a.fence.Renew(only, 10*time.Second)) // an expired element is no obstacle
	if got := b.asks(t); got != a.mac {
		t.Errorf("fence open after expiry: %q answers, want %s", got, a.mac)
	}
	a.install(t) // a gateway restarts: nothing is held
	if got := b.asks(t); got != "" {
		t.Errorf("installed again: %s answers", got)
	}
}

func TestFenceStopsPacketsToAndFromTheAddress(t *testing.T) {
	s := segment(t, "a", "b")
	a, b := s["a"], s["b"]
	a.install(t)
	sh(t, a.ns, "ip addr add 192.0.2.10/32 dev eth0")
	sh(t, b.ns, "ip neigh replace 192.0.2.10 lladdr "+a.mac+" dev eth0")
	vipSocket, local, far := a.udp(t, "192.0.2.10:7"), a.udp(t, "192.0.2.1:9"), b.udp(t, "192.0.2.2:8")
	vipAt, farAt := netip.MustParseAddrPort("192.0.2.10:7"), netip.MustParseAddrPort("192.0.2.2:8")
	ways := []struct {
		name     string
		from, to *net.UDPConn
		dst      netip.AddrPort
	}{
		{"from outside", far, vipSocket, vipAt},
		{"from the host itself", local, vipSocket, vipAt},
		{"with the address as source", vipSocket, far, farAt},
	}
	for _, w := range ways {
		before, err := a.fence.Dropped()
		must(t, err)
		must(t, a.fence.Close(only))
		_, _ = w.from.WriteToUDPAddrPort([]byte("closed"), w.dst) // EPERM where the host itself is stopped
		eventually(t, w.name+": counted as dropped", func() bool {
			n, err := a.fence.Dropped()
			must(t, err)
			return n > before
		})
		must(t, a.fence.Renew(only, 10*time.Second))
		if _, err := w.from.WriteToUDPAddrPort([]byte("open"), w.dst); err != nil {
			t.Errorf("%s: %v", w.name, err)
		}
		if got := read(t, w.to); got != "open" {
			t.Errorf("%s: %q came through first", w.name, got)
		}
	}
}

// A holder whose lease ended goes on forwarding what conntrack translates for it.
func TestFenceStopsForwardedPacketsTranslatedToTheAddress(t *testing.T) {
	s := segment(t, "a", "b")
	a, b := s["a"], s["b"]
	pod := namespace(t, "pod")
	sh(t, a.ns, "ip link add pod type veth peer name eth0 netns "+pod.Name)
	sh(t, a.ns, "ip addr add 10.0.0.1/24 dev pod && ip link set pod up && sysctl -qw net.ipv4.ip_forward=1")
	sh(t, pod, "ip addr add 10.0.0.2/24 dev eth0 && ip link set eth0 up && ip route add default via 10.0.0.1")
	sh(t, a.ns, `nft 'table ip cni { chain post { type nat hook postrouting priority 95; oifname "eth0" snat to 192.0.2.10; }; }'`)
	a.install(t)
	p := host(t, pod)
	from, to := p.udp(t, "10.0.0.2:9"), b.udp(t, "192.0.2.2:8")
	dst := netip.MustParseAddrPort("192.0.2.2:8")

	must(t, a.fence.Renew(only, 10*time.Second))
	_, err := from.WriteToUDPAddrPort([]byte("first"), dst)
	must(t, err)
	if got := read(t, to); got != "first" {
		t.Fatalf("while held: got %q", got)
	}
	must(t, a.fence.Close(only))
	before, err := a.fence.Dropped()
	must(t, err)
	for range 3 {
		_, err := from.WriteToUDPAddrPort([]byte("closed"), dst)
		must(t, err)
	}
	eventually(t, "three dropped behind the translation", func() bool {
		n, err := a.fence.Dropped()
		must(t, err)
		return n >= before+3
	})
	must(t, a.fence.Renew(only, 10*time.Second))
	_, err = from.WriteToUDPAddrPort([]byte("open"), dst)
	must(t, err)
	if got := read(t, to); got != "open" {
		t.Errorf("%q left as the VIP while it was not held", got)
	}
}

func read(t *testing.T, c *net.UDPConn) string {
	t.Helper()
	must(t, c.SetReadDeadline(time.Now().Add(10*time.Second)))
	buf := make([]byte, 64)
	n, err := c.Read(buf)
	must(t, err)
	return string(buf[:n])
}

func TestRenewSaysWhenItWasNotHeard(t *testing.T) {
	a := segment(t, "a")["a"]
	if err := a.fence.Renew(only, time.Second); err == nil || !strings.Contains(err.Error(), "not installed") {
		t.Errorf("before Install: %v", err)
	}
	a.install(t)
	if err := a.fence.RenewUntil(only, Boottime()-time.Second); !errors.Is(err, ErrTooLate) {
		t.Errorf("a lease that is over: %v", err)
	}
	if err := a.fence.Renew(only, Shortest-time.Millisecond); !errors.Is(err, ErrTooLate) {
		t.Errorf("less than a tick: %v", err)
	}
	other := netip.MustParseAddr("192.0.2.77")
	if err := a.fence.Renew([]netip.Addr{other}, time.Second); !errors.Is(err, ErrNotTaken) || a.fence.Open(other) {
		t.Errorf("an address that does not move: %v", err)
	}
	// As from a version with another ladder, whose packets only the closed fence stops.
	if err := a.fence.tell(addr, 9999); !errors.Is(err, ErrNotTaken) {
		t.Errorf("a renewal that no rung knows: %v", err)
	}
	if held, err := a.fence.Held(); err != nil || len(held) != 0 {
		t.Errorf("held after all that: %v, %v", held, err)
	}
	must(t, a.fence.Renew(only, time.Second))
	sh(t, a.ns, "nft flush ruleset")
	if err := a.fence.Renew(only, time.Second); !errors.Is(err, ErrNotTaken) {
		t.Errorf("fence removed by somebody: %v", err)
	}
	if held, err := a.fence.Held(); err != nil || len(held) != 0 {
		t.Errorf("held without a fence: %v, %v", held, err)
	}
	must(t, a.fence.Remove())
}

// Several addresses, both tables.
func TestRenewHoldsAllAddressesInBothTables(t *testing.T) {
	a := segment(t, "a")["a"]
	pair := []netip.Addr{addr, netip.MustParseAddr("10.0.0.10")}
	must(t, a.fence.Install(t.Context(), pair, time.Minute))
	must(t, a.fence.Renew(pair, time.Minute))
	for _, family := range []string{"arp", "ip"} {
		eventually(t, family+" holds both", func() bool {
			list := sh(t, a.ns, "nft list set "+family+" sally_fence held")
			return strings.Contains(list, "192.0.2.10 ") && strings.Contains(list, "10.0.0.10 ")
		})
	}
	must(t, a.fence.Close(pair[:1]))
	held, err := a.fence.Held()
	if _, is := held[pair[1]]; err != nil || !is || len(held) != 1 {
		t.Errorf("after closing one: %v, %v", held, err)
	}
}

func TestFenceIsNeverOpenedForLongerThanAsked(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		longest := time.Duration(rapid.Int64Range(0, int64(time.Minute)).Draw(t, "longest"))
		d := time.Duration(rapid.Int64Range(0, int64(2*time.Minute)).Draw(t, "d"))
		rungs := ladder(longest)
		i, ok := rung(rungs, d)
		if ok != (d >= Shortest) {
			t.Fatalf("%s within %v: %v", d, rungs, ok)
		}
		if !ok {
			return
		}
		got := rungs[i]
		if got > d || got < Shortest || got%time.Millisecond != 0 {
			t.Fatalf("asked for %s, gets %s", d, got)
		}
		want := min(d, max(longest, Shortest))
		if lost := want - got; lost > want/15+3*time.Millisecond || want > longest/2 && lost > longest/64+3*time.Millisecond {
			t.Fatalf("asked for %s of at most %s, loses %s", d, longest, lost)
		}
	})
}
