package layer2

import (
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/sallyport/sallyport/vip"
)

// What hosts sent to the one before the heir waits for it: the heir's own, which no
// kernel would take back as it is, and everybody else's, as it came.
func TestRelayKeepsPacketsForTheHeir(t *testing.T) {
	const tunnel = 4793
	s := segment(t, "a", "b", "c")
	before, heir, third := s["a"], s["b"], s["c"]
	r, err := NewRelay(before.Host, []vip.VIP{v}, tunnel, slog.New(slog.DiscardHandler))
	must(t, err)
	t.Cleanup(func() { _ = r.Stop() })
	sh(t, before.ns, "ip addr add 192.0.2.10/32 dev eth0")
	for _, n := range []*station{heir, third} {
		sh(t, n.ns, "ip neigh replace 192.0.2.10 lladdr "+before.mac+" dev eth0")
	}
	// What waits, waits for as many questions: a busy machine may need longer than three seconds.
	sh(t, before.ns, "sysctl -qw net.ipv4.neigh.eth0.mcast_solicit=60")
	at, home := netip.AddrPortFrom(addr, tunnel), before.udp(t, "192.0.2.10:4793")
	fromHeir, fromThird := heir.udp(t, "192.0.2.2:0"), third.udp(t, "192.0.2.3:0")
	must(t, r.Up(t.Context(), []netip.Addr{netip.MustParseAddr("192.0.2.2")}))
	must(t, r.Up(t.Context(), []netip.Addr{netip.MustParseAddr("192.0.2.4")})) // of another VIP, meanwhile
	_, err = fromHeir.WriteToUDPAddrPort([]byte("home"), at)
	must(t, err)
	if got := read(t, home); got != "home" {
		t.Errorf("a relay of an address that is here passed on: got %q", got)
	}
	sh(t, before.ns, "ip addr del 192.0.2.10/32 dev eth0")

	// What is for another card is heard by all of the segment, and not passed on.
	sh(t, third.ns, "ip neigh replace 192.0.2.10 lladdr 02:00:00:00:00:99 dev eth0")
	_, err = fromThird.WriteToUDPAddrPort([]byte("overheard"), at)
	must(t, err)
	sh(t, third.ns, "ip neigh replace 192.0.2.10 lladdr "+before.mac+" dev eth0")
	for _, text := range []string{"1", "2", "3"} {
		_, err = fromHeir.WriteToUDPAddrPort([]byte(text), at)
		must(t, err)
		_, err = fromThird.WriteToUDPAddrPort([]byte(text), at)
		must(t, err)
	}
	eventually(t, "all six wait", func() bool {
		n, err := r.Passed()
		must(t, err)
		return n == 6
	})
	heir.install(t)
	must(t, heir.fence.Renew(only, time.Minute))
	in := heir.udp(t, "0.0.0.0:4793")
	must(t, heir.say.Claim(v))
	from := map[string]string{}
	must(t, in.SetReadDeadline(time.Now().Add(10*time.Second)))
	for range 6 {
		buf := make([]byte, 64)
		n, sender, err := in.ReadFromUDPAddrPort(buf)
		must(t, err)
		from[sender.Addr().Unmap().String()] += string(buf[:n])
	}
	if len(from) != 2 || from["192.0.2.1"] != "123" || from["192.0.2.3"] != "123" {
		t.Errorf("arrived: %v", from)
	}
	must(t, r.Down())
	if _, err := r.Passed(); err != nil {
		t.Errorf("one user has gone and the relay with it: %v", err)
	}
	must(t, r.Down())
	if _, err := r.Passed(); err == nil {
		t.Error("the relay stays without a user")
	}
}
