package vxlan

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os/exec"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/tunnel"
)

// sameAsListed fails unless the mirror shows what a listing of the kernel gives.
func sameAsListed(t *testing.T, m *mirror, after string) {
	t.Helper()
	seen, err := m.look(m.first, m.last, 0)
	if err != nil {
		t.Fatalf("after %s: %v", after, err)
	}
	have, err := m.asks.listed(m.first, m.last, 0)
	if err != nil {
		t.Fatalf("after %s: %v", after, err)
	}
	if len(seen)+len(have) > 0 && !reflect.DeepEqual(seen, have) {
		t.Fatalf("after %s the mirror shows\n%v\nand the kernel\n%v", after, seen, have)
	}
}

// mirrorOf one table, beside the applier's own.
func mirrorOf(t *testing.T, a *Applier, table, room int) *mirror {
	t.Helper()
	m, err := newMirror(a.conn, room)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.hears.close() })
	m.first, m.last = table, table
	return m
}

// never is long after the test.
func never() time.Time { return time.Now().Add(time.Hour) }

// TestMirrorFollowsEverybody compares it with the kernel while we, and others by ip,
// change the tables and what is around them.
func TestMirrorFollowsEverybody(t *testing.T) {
	host(t)
	cfg := tunnel.DefaultConfig()
	a, random := applier(t, cfg), rand.New(rand.NewPCG(5, 6))
	ip := func(what string, args ...any) string {
		what = fmt.Sprintf(what, args...)
		_ = exec.Command("ip", strings.Fields(what)...).Run() // refused where it names what is not there
		return what
	}
	nodeOf := pods(40)
	table := cfg.Downward(local, nil).FirstTable
	m := mirrorOf(t, a, table, announcements)
	pod := func() netip.Addr { return netip.AddrFrom4([4]byte{10, 244, 0, byte(random.IntN(60))}) }
	others := []func() string{
		func() string { return ip("route del table %d %s", table, pod()) },
		func() string { return ip("route add table %d %s via 192.0.2.77", table, pod()) },
		func() string { return ip("route replace table %d %s via 192.0.2.77 proto 83", table, pod()) },
		func() string { return ip("route append table %d %s via 192.0.2.78 proto 83", table, pod()) },
		func() string { return ip("route prepend table %d throw %s proto 83", table, pod()) },
		func() string { return ip("route add table %d %s via 192.0.2.77 metric 9", table, pod()) },
		func() string { return ip("route add table %d %s tos 0x10 via 192.0.2.77", table, pod()) },
		func() string { return ip("route add table %d %s via 192.0.2.77", table-1, pod()) },
		func() string { return ip("route flush table %d", table) },
		func() string { return ip("link set sally0 down") },
		func() string { return ip("link set sally0 down") + " and " + ip("link set sally0 up") },
		func() string { return ip("link set eth0 down") + " and " + ip("link set eth0 up") },
		func() string { return ip("addr del 192.0.2.1/32 dev sally0") },
		func() string { return ip("link del sally0") },
		func() string {
			return ip("link add other0 type veth peer name other1") + " and " + ip("link del other0")
		},
	}
	for n := range 200 {
		what := "an Apply"
		if random.IntN(2) == 0 {
			if addr := pod(); random.IntN(2) == 0 {
				delete(nodeOf, addr)
			} else {
				nodeOf[addr] = netip.AddrFrom4([4]byte{192, 0, 2, byte(20 + random.IntN(3))})
			}
			// Others' routes may be in the way, which is said and not the matter here.
			_ = a.Apply(t.Context(), cfg.Downward(local, maps.All(nodeOf)))
		} else {
			what = others[random.IntN(len(others))]()
		}
		m.old = never()
		sameAsListed(t, m, fmt.Sprintf("change %d, %s,", n, what))
	}
}

func TestMirrorListsNothingAnewForRoutes(t *testing.T) {
	host(t)
	cfg := tunnel.DefaultConfig()
	a, nodeOf := applier(t, cfg), pods(300)
	apply(t, a, cfg.Downward(local, maps.All(nodeOf)))
	apply(t, a, cfg.Downward(local, maps.All(nodeOf)))
	a.mirror.old = never()
	stays := netip.MustParseAddr("10.244.0.3")
	entryOf := func() *entry {
		for _, e := range a.mirror.have {
			if e.dst.Addr() == stays {
				return e
			}
		}
		t.Fatalf("there is no route to %s", stays)
		return nil
	}
	first := entryOf()
	shell(t, "ip link add other0 type veth peer name other1; ip link set other0 up; ip route add table 77 10.0.0.0/8 dev other0; ip link del other0")
	for i := range 20 {
		delete(nodeOf, netip.AddrFrom4([4]byte{10, 244, 0, byte(100 + i)}))
		nodeOf[netip.AddrFrom4([4]byte{10, 244, 9, byte(i)})] = vipB
		nodeOf[netip.MustParseAddr("10.244.0.4")] = netip.AddrFrom4([4]byte{192, 0, 2, byte(100 + i)})
		if n := writes(a, func() { apply(t, a, cfg.Downward(local, maps.All(nodeOf))) }); n != 3 {
			t.Fatalf("a pod that came, one that went and one that moved took %d messages", n)
		}
		if entryOf() != first {
			t.Fatal("the table was listed anew")
		}
	}
}

// TestMirrorThatMissedSomething has no room for what is announced.
func TestMirrorThatMissedSomething(t *testing.T) {
	host(t)
	cfg := tunnel.DefaultConfig()
	a := applier(t, cfg)
	table := cfg.Downward(local, nil).FirstTable
	m := mirrorOf(t, a, table, 1)
	for i := range 5 {
		apply(t, a, cfg.Downward(local, maps.All(pods(100*(i+1)))))
		m.old = never()
		sameAsListed(t, m, "more than there is room for")
		apply(t, a, cfg.Downward(local, nil))
		m.old = never()
		sameAsListed(t, m, "all of it gone")
	}
}

// TestMirrorIsNotBelievedForEver hides a change from it.
func TestMirrorIsNotBelievedForEver(t *testing.T) {
	host(t)
	cfg := tunnel.DefaultConfig()
	a, plan := applier(t, cfg), cfg.Downward(local, maps.All(pods(5)))
	apply(t, a, plan)
	apply(t, a, plan)
	shell(t, fmt.Sprintf("ip route flush table %d", plan.FirstTable))
	for a.mirror.hears.read(unix.MSG_DONTWAIT, func(header, []byte) {}) == nil { // nobody hears
	}
	a.mirror.old = time.Now()
	if n := writes(a, func() { apply(t, a, plan) }); n != 5 {
		t.Errorf("%d routes were put back, want 5", n)
	}
}
