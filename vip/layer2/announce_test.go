package layer2

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/vip"
)

// neighbour is the MAC that the station's kernel would send to.
func (s *station) neighbour(t *testing.T) string {
	t.Helper()
	fields := strings.Fields(sh(t, s.ns, "ip neigh show 192.0.2.10 dev eth0"))
	for i, f := range fields {
		if f == "lladdr" {
			return fields[i+1]
		}
	}
	return ""
}

func TestClaimMovesTheNeighboursEntry(t *testing.T) {
	s := segment(t, "a", "b", "c")
	a, b, c := s["a"], s["b"], s["c"]
	a.install(t)
	c.install(t)
	must(t, a.fence.Renew(only, 10*time.Second))
	must(t, a.say.Claim(v))
	from := b.udp(t, "192.0.2.2:9")
	_, err := from.WriteToUDPAddrPort([]byte("who is it"), netip.AddrPortFrom(addr, 7))
	must(t, err)
	eventually(t, "b sends to a", func() bool { return b.neighbour(t) == a.mac })
	must(t, a.say.Release(v))
	must(t, a.fence.Close(only))
	if a.has(t, addr) {
		t.Error("released, but still on a")
	}
	must(t, c.fence.Renew(only, 10*time.Second))
	must(t, c.say.Claim(v))
	eventually(t, "b sends to c without having asked", func() bool { return b.neighbour(t) == c.mac })
	at := c.udp(t, "192.0.2.10:7")
	_, err = from.WriteToUDPAddrPort([]byte("hello"), netip.AddrPortFrom(addr, 7))
	must(t, err)
	if got := read(t, at); got != "hello" {
		t.Errorf("c got %q", got)
	}
}

func TestClaimAndReleaseCanBeRepeated(t *testing.T) {
	a := segment(t, "a")["a"]
	sh(t, a.ns, "sysctl -qw net.ipv6.conf.all.disable_ipv6=1 && ip link add link eth0 name eth1 type macvlan && ip link set eth1 up && ip addr add 10.0.0.1/24 dev eth1")
	two := vip.VIP{Addr: addr, Interface: "eth0", Via: netip.MustParseAddr("10.0.0.10"), ViaInterface: "eth1"}
	must(t, a.fence.Install(t.Context(), two.Addrs(), time.Minute))
	before := sh(t, a.ns, "ip addr; ip route show table all")
	must(t, a.say.Release(two))
	for range 2 {
		must(t, a.fence.Renew(two.Addrs(), time.Minute))
		must(t, a.say.Claim(two))
		for iface, want := range map[string]string{"eth0": "192.0.2.10/32", "eth1": "10.0.0.10/32"} {
			out := sh(t, a.ns, "ip -d addr show dev "+iface)
			if !strings.Contains(out, "inet "+want) || !strings.Contains(out, "noprefixroute") {
				t.Errorf("on %s: %s", iface, out)
			}
		}
		sh(t, a.ns, "ip addr del 10.0.0.10/32 dev eth1") // claiming again heals
	}
	for range 2 {
		must(t, a.say.Release(two))
	}
	if after := sh(t, a.ns, "ip addr; ip route show table all"); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	sh(t, a.ns, "ip link del eth1")
	must(t, a.say.Release(two)) // with the interface gone
	if err := a.say.Claim(two); err == nil || !strings.Contains(err.Error(), `"eth1"`) {
		t.Errorf("claim on a missing interface: %v", err)
	}
}

func TestClaimLeavesAnAddressOfOthersAlone(t *testing.T) {
	a := segment(t, "a")["a"]
	a.install(t)
	sh(t, a.ns, "ip addr add 192.0.2.10/32 dev eth0")
	must(t, a.fence.Renew(only, time.Minute))
	if err := a.say.Claim(v); err == nil || !strings.Contains(err.Error(), "from elsewhere") {
		t.Errorf("claim over an address of the host: %v", err)
	}
	must(t, a.say.Release(v))
	if _, err := a.Reap(only); err != nil || !a.has(t, addr) {
		t.Errorf("the host's own address is gone (%v)", err)
	}
}

// A process that was stopped for long resumes in the middle of its schedule, when
// another may hold the VIP.
func TestNothingIsAnnouncedOnceTheLeaseIsOver(t *testing.T) {
	s := segment(t, "a", "b")
	a, b := s["a"], s["b"]
	a.install(t)
	heard := make(chan Conflict, 16)
	ears, err := b.ListenConflicts(v)
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- ears.Run(ctx, func(c Conflict) { heard <- c }) }()
	must(t, a.say.Claim(v)) // with the fence closed: its first announcements come within 300 ms
	if got := b.asks(t); got != "" {
		t.Errorf("%s answers", got)
	}
	select {
	case c := <-heard:
		t.Errorf("announced without a lease: %+v", c)
	case <-time.After(400 * time.Millisecond): // the schedule's repeats at 100 and 300 ms
	}
	must(t, a.fence.Renew(only, time.Minute))
	select {
	case c := <-heard:
		if c.MAC.String() != a.mac || c.Addr != addr || c.Interface != "eth0" {
			t.Errorf("heard %+v", c)
		}
	case <-time.After(10 * time.Second):
		t.Error("the schedule does not go on when the lease does")
	}
	cancel()
	must(t, <-done)
}

// The host's own connections keep the host's own source, whatever it has besides.
func TestTheHostNeverChoosesTheVIPAsSource(t *testing.T) {
	a := segment(t, "a")["a"]
	a.install(t)
	must(t, a.fence.Renew(only, time.Minute))
	sh(t, a.ns, "ip link add link eth0 name bare type macvlan && ip link set bare up")
	must(t, a.say.Claim(vip.VIP{Addr: addr, Interface: "bare"}))
	sh(t, a.ns, "ip route add 203.0.113.0/24 dev bare")
	for _, dst := range []string{"203.0.113.5", "192.0.2.2"} {
		out := sh(t, a.ns, "ip route get "+dst)
		if !strings.Contains(out, "src 192.0.2.1 ") {
			t.Errorf("to %s: %s", dst, out)
		}
	}
}

func TestProbeFindsAnotherHolder(t *testing.T) {
	s := segment(t, "a", "b")
	a, b := s["a"], s["b"]
	sh(t, b.ns, "ip addr add 192.0.2.10/32 dev eth0")
	a.install(t)
	must(t, a.fence.Renew(only, time.Minute))
	must(t, a.say.Claim(v))
	got, answered, err := a.Probe(t.Context(), v, 10*time.Second)
	if err != nil || !answered || got.MAC.String() != b.mac {
		t.Errorf("probe: %+v, %v, %v; want %s", got, answered, err, b.mac)
	}
	sh(t, b.ns, "ip addr del 192.0.2.10/32 dev eth0")
	if got, answered, err := a.Probe(t.Context(), v, 100*time.Millisecond); err != nil || answered {
		t.Errorf("probe of a VIP that only a itself has: %+v, %v, %v", got, answered, err)
	}
	if _, _, err := a.Probe(t.Context(), vip.VIP{Addr: addr, Interface: "eth9"}, time.Second); err == nil {
		t.Error("probe on a missing interface says nothing")
	}
}

func TestConflictsAreReportedOncePerMAC(t *testing.T) {
	s := segment(t, "a", "b", "c")
	a := s["a"]
	heard := make(chan string, 64)
	ears, err := a.ListenConflicts(v)
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- ears.Run(ctx, func(c Conflict) { heard <- c.MAC.String() }) }()
	b, bLink := s["b"], index(t, s["b"])
	aLink, err := a.links.LinkByName("eth0")
	must(t, err)
	echo := arpFrame(arpReply, aLink.Attrs().HardwareAddr, addr, broadcast, addr)
	copy(echo[6:], []byte{2, 0, 0, 0, 0, 9}) // a's own claim as a switch or a bond sends it back
	must(t, b.send(bLink, echo))
	for range 5 { // a fights: own frames and repeats are no news
		for _, name := range []string{"a", "b", "c"} {
			st := s[name]
			link, err := st.links.LinkByName("eth0")
			must(t, err)
			must(t, st.send(link.Attrs().Index, arpFrame(arpReply, link.Attrs().HardwareAddr, addr, broadcast, addr)))
		}
	}
	eventually(t, "both foreign MACs", func() bool { return len(heard) >= 2 })
	sh(t, a.ns, "ip link set eth0 down && ip link set eth0 up") // goes on listening
	stranger := []byte{2, 0, 0, 0, 0, 7}
	eventually(t, "a third MAC after the interface was down", func() bool {
		must(t, b.send(bLink, arpFrame(arpRequest, stranger, addr, nil, addr)))
		return len(heard) >= 3
	})
	cancel()
	must(t, <-done)
	if len(heard) != 3 {
		t.Errorf("%d reports, want 3", len(heard))
	}
	for first, second := <-heard, <-heard; first == second || first == a.mac || second == a.mac; {
		t.Fatalf("reported %s and %s; own is %s", first, second, a.mac)
	}
}

// The first announcement is on the wire when Claim returns, as request and as reply,
// for every address; nothing follows a Release.
func TestClaimAnnouncesBeforeItReturns(t *testing.T) {
	s := segment(t, "a", "b")
	a := s["a"]
	a.install(t)
	ears, _, err := s["b"].listen(addr, "eth0")
	must(t, err)
	defer ears.Close()
	must(t, a.fence.Renew(only, time.Minute))
	must(t, a.say.Claim(v))
	must(t, a.say.Release(v))
	marker := arpFrame(26, []byte{2, 0, 0, 0, 0, 1}, addr, nil, addr)
	must(t, a.send(index(t, a), marker))
	for _, want := range []uint16{arpRequest, arpReply, 26} {
		must(t, ears.SetReadDeadline(time.Now().Add(10*time.Second)))
		buf := make([]byte, 64)
		n, _, err := ears.ReadFrom(buf)
		must(t, err)
		got, ok := parseARP(buf[:n])
		if !ok || got.op != want || got.senderIP != addr || want < 26 && got.sender.String() != a.mac {
			t.Errorf("heard %+v, want operation %d of %s", got, want, a.mac)
		}
	}
	must(t, ears.SetReadDeadline(time.Now().Add(200*time.Millisecond))) // the schedule's next is at 100 ms
	if _, _, err := ears.ReadFrom(make([]byte, 64)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("announced after Release (%v)", err)
	}
}

func TestAnAddressThatIsGoneIsRemovedWithoutError(t *testing.T) {
	a := segment(t, "a")["a"]
	must(t, a.deleteAddress(address{addr: addr, bits: 32, index: index(t, a)}))
	must(t, a.deleteAddress(address{addr: addr, bits: 32, index: 4711}))
}
