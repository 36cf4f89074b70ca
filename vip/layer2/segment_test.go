package layer2

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netns"
	"go.uber.org/goleak"

	ns "github.com/sallyport/sallyport/e2e/netns"
	"github.com/sallyport/sallyport/vip"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	addr = netip.MustParseAddr("192.0.2.10")
	only = []netip.Addr{addr}
	v    = vip.VIP{Addr: addr, Interface: "eth0"}
)

// station is a host on the test's segment.
type station struct {
	*Host
	ns     *ns.NS
	bridge *ns.NS
	fence  *Fence
	say    *Announcer
	mac    string
}

// segment makes hosts on one bridge, named in order: 192.0.2.1, 192.0.2.2, ...
func segment(t testing.TB, names ...string) map[string]*station {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root for network namespaces")
	}
	sw := namespace(t, "sw")
	sh(t, sw, "ip link add br0 type bridge")
	sh(t, sw, "ip link set br0 up")
	out := map[string]*station{}
	for i, name := range names {
		n := namespace(t, name)
		sh(t, n, "ip link set lo up")
		sh(t, sw, "ip link add u"+name+" type veth peer name eth0 netns "+n.Name)
		sh(t, sw, "ip link set u"+name+" master br0 up")
		sh(t, n, "ip addr add 192.0.2."+string(rune('1'+i))+"/24 dev eth0")
		sh(t, n, "ip link set eth0 up")
		out[name] = host(t, n)
		out[name].bridge = sw
	}
	return out
}

// namespace of this process: two runs at a time do not take each other's.
func namespace(t testing.TB, name string) *ns.NS {
	t.Helper()
	n, err := ns.New(fmt.Sprintf("spv%d-%s", os.Getpid(), name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// host opens this package inside a namespace.
func host(t testing.TB, n *ns.NS) *station {
	t.Helper()
	handle, err := netns.GetFromName(n.Name)
	if err != nil {
		t.Fatal(err)
	}
	h, err := OpenAt(handle)
	if err != nil {
		t.Fatal(err)
	}
	f, err := NewFence(h)
	if err != nil {
		t.Fatal(err)
	}
	say := NewAnnouncer(h, f, slog.New(slog.DiscardHandler))
	t.Cleanup(func() {
		say.Close()
		_ = f.Stop()
		_ = h.Close()
		_ = handle.Close()
	})
	mac := strings.TrimSpace(sh(t, n, "cat /sys/class/net/eth0/address"))
	return &station{Host: h, ns: n, fence: f, say: say, mac: mac}
}

func sh(t testing.TB, n *ns.NS, command string) string {
	t.Helper()
	out, err := n.Run("sh", "-c", command)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (s *station) install(t testing.TB) {
	t.Helper()
	must(t, s.fence.Install(t.Context(), only, 10*time.Second))
	must(t, s.fence.Guard(t.Context(), "eth0"))
}

// asks is who answers for the VIP on the wire, by MAC; "" for nobody.
func (s *station) asks(t testing.TB) string {
	t.Helper()
	got, answered, err := s.Probe(context.Background(), v, 150*time.Millisecond)
	must(t, err)
	if !answered {
		return ""
	}
	return got.MAC.String()
}

func (s *station) has(t testing.TB, addr netip.Addr) bool {
	t.Helper()
	all, err := s.addresses()
	must(t, err)
	for _, a := range all {
		if a.addr == addr {
			return true
		}
	}
	return false
}

// eventually polls what the kernel or another goroutine brings about by itself.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("not seen within a minute: %s", what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// udp is a socket inside the host.
func (s *station) udp(t testing.TB, local string) *net.UDPConn {
	t.Helper()
	var conn *net.UDPConn
	must(t, s.inside(func() error {
		var err error
		conn, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(local)))
		return err
	}))
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}
