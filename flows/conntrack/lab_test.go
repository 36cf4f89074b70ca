package conntrack_test

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sallyport/sallyport/e2e/netns"
	"github.com/sallyport/sallyport/flows/conntrack"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The lab: a pod address and a server, with two gateways between them, of which one
// has the VIP and the routes of both.
//
//	10.244.1.10, .11 ── a ── 203.0.113.5
//	                 ── b ──
const (
	zone     = 7
	podA     = "10.244.1.10"
	podB     = "10.244.1.11"
	server   = "203.0.113.5"
	port     = 7000
	patience = 10 * time.Second
)

var vip = netip.MustParseAddr("192.0.2.10")

type takeoverLab struct {
	t                 *testing.T
	pod, a, b, server *netns.NS
	listener          *net.TCPListener
}

func newTakeover(t *testing.T) *takeoverLab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root for network namespaces")
	}
	sweep(t)
	l := &takeoverLab{t: t}
	for name, ns := range map[string]**netns.NS{"pod": &l.pod, "a": &l.a, "b": &l.b, "srv": &l.server} {
		made, err := netns.New(fmt.Sprintf("spct-%d-%s", os.Getpid(), name))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := made.Close(); err != nil {
				t.Error(err)
			}
		})
		*ns = made
	}
	for _, ns := range []*netns.NS{l.pod, l.a, l.b, l.server} {
		l.do(ns, func() error {
			return ns.Sysctls("ipv4/ip_forward=1", "ipv4/conf/all/rp_filter=0", "ipv4/conf/default/rp_filter=0")
		})
		l.run(ns, "ip link set lo up")
	}
	l.run(l.pod, "ip addr add "+podA+"/32 dev lo", "ip addr add "+podB+"/32 dev lo")
	l.run(l.server, "ip addr add "+server+"/32 dev lo")
	for i, gw := range []*netns.NS{l.a, l.b} {
		side := []string{"toa", "tob"}[i]
		for j, end := range []*netns.NS{l.pod, l.server} {
			dev := []string{"pods", "out"}[j]
			net := fmt.Sprintf("198.18.%d", 2*i+j)
			l.run(gw, "ip link add "+dev+" type veth peer name "+side+" netns "+end.Name,
				"ip addr add "+net+".1/24 dev "+dev, "ip link set "+dev+" up")
			l.run(end, "ip addr add "+net+".2/24 dev "+side, "ip link set "+side+" up")
		}
		l.run(gw, fmt.Sprintf("ip route add 10.244.1.0/24 via 198.18.%d.2", 2*i),
			fmt.Sprintf("ip route add %s via 198.18.%d.2", server, 2*i+1))
		l.must(gw, "nft", fmt.Sprintf(`table ip gateway {
			counter invalid { }
			chain zones { type filter hook prerouting priority raw;
				iif pods ct zone set %d; iif out ip daddr %s ct zone set %[1]d; }
			chain judged { type filter hook prerouting priority mangle;
				ct state invalid counter name invalid drop; }
			chain input { type filter hook input priority filter; ip daddr %[2]s drop; }
			chain out { type nat hook postrouting priority srcnat; oif out snat to %[2]s; }
		}`, zone, vip))
		// What a gateway does not know it must not pick up: only the entry counts.
		l.do(gw, func() error { return gw.Sysctls("netfilter/nf_conntrack_tcp_loose=0") })
	}
	l.serve()
	l.route(l.a)
	return l
}

// sweep removes what an interrupted run left behind.
func sweep(t *testing.T) {
	names, err := netns.Names("spct-")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if _, err := os.Stat("/proc/" + strings.Split(name, "-")[1]); os.IsNotExist(err) {
			if ns, err := netns.Open(name); err == nil {
				t.Logf("removing %s, left by an earlier run: %v", name, ns.Close())
			}
		}
	}
}

func (l *takeoverLab) serve() {
	l.do(l.server, func() (err error) {
		l.listener, err = net.ListenTCP("tcp4", &net.TCPAddr{IP: net.ParseIP(server), Port: port})
		return err
	})
	l.t.Cleanup(func() { _ = l.listener.Close() })
}

// route moves the VIP and the routes of both ends to a gateway.
func (l *takeoverLab) route(gw *netns.NS) {
	l.t.Helper()
	via := map[*netns.NS][2]string{l.a: {"198.18.0.1", "198.18.1.1"}, l.b: {"198.18.2.1", "198.18.3.1"}}[gw]
	for _, other := range []*netns.NS{l.a, l.b} {
		_, _ = other.Run("ip", "addr", "del", vip.String()+"/32", "dev", "out") // may not have it
	}
	l.run(gw, "ip addr add "+vip.String()+"/32 dev out")
	l.run(l.pod, "ip route replace "+server+" via "+via[0])
	l.run(l.server, "ip route replace "+vip.String()+" via "+via[1])
}

func (l *takeoverLab) do(ns *netns.NS, f func() error) {
	l.t.Helper()
	if err := ns.Do(f); err != nil {
		l.t.Fatal(err)
	}
}

func (l *takeoverLab) must(ns *netns.NS, name string, args ...string) string {
	l.t.Helper()
	out, err := ns.Run(name, args...)
	if err != nil {
		l.t.Fatal(err)
	}
	return out
}

func (l *takeoverLab) run(ns *netns.NS, commands ...string) {
	l.t.Helper()
	for _, c := range commands {
		f := strings.Fields(c)
		l.must(ns, f[0], f[1:]...)
	}
}

// connect opens a connection from a pod's address and gives both its ends.
func (l *takeoverLab) connect(src string, sport int) (pod, srv net.Conn) {
	l.t.Helper()
	l.do(l.pod, func() (err error) {
		d := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: net.ParseIP(src), Port: sport}}
		pod, err = d.Dial("tcp4", l.listener.Addr().String())
		return err
	})
	_ = l.listener.SetDeadline(time.Now().Add(patience))
	srv, err := l.listener.Accept()
	if err != nil {
		l.t.Fatal(err)
	}
	for _, c := range []net.Conn{pod, srv} {
		l.t.Cleanup(func() { _ = c.Close() })
	}
	if got := srv.RemoteAddr().(*net.TCPAddr).AddrPort().Addr(); got != vip {
		l.t.Fatalf("the server sees %s, want the VIP %s", got, vip)
	}
	if err := say(pod, srv, "hello"); err != nil { // both directions: ASSURED
		l.t.Fatal(err)
	}
	if err := say(srv, pod, "hello"); err != nil {
		l.t.Fatal(err)
	}
	return pod, srv
}

// say sends a word from one end to the other.
func say(from, to net.Conn, word string) error {
	_ = to.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(from, word); err != nil {
		return err
	}
	buf := make([]byte, len(word))
	if _, err := io.ReadFull(to, buf); err != nil {
		return err
	}
	if string(buf) != word {
		return fmt.Errorf("%q arrived, want %q", buf, word)
	}
	return nil
}

// entries dumps the zone in a gateway.
func (l *takeoverLab) entries(gw *netns.NS) (entries []conntrack.Entry) {
	l.t.Helper()
	l.do(gw, func() (err error) {
		entries, err = conntrack.Dump(conntrack.IPv4, conntrack.Mark{}, func(e *conntrack.Entry) bool { return e.Zone == zone })
		return err
	})
	return entries
}

// entry is the one of a connection, named by its end in the pod.
func (l *takeoverLab) entry(gw *netns.NS, pod net.Conn) conntrack.Entry {
	l.t.Helper()
	local := netip.MustParseAddrPort(pod.LocalAddr().String())
	for _, e := range l.entries(gw) {
		if netip.AddrPortFrom(e.Original.Src, e.Original.SrcPort) == local {
			return e
		}
	}
	l.t.Fatalf("%s has no entry of %s", gw.Name, local)
	return conntrack.Entry{}
}

// insert creates entries in a gateway.
func (l *takeoverLab) insert(gw *netns.NS, create func(conntrack.Entry) error, entries ...conntrack.Entry) {
	l.t.Helper()
	for _, e := range entries {
		l.do(gw, func() error { return create(e) })
	}
}

// invalid is how many packets a gateway dropped because conntrack called them invalid.
func (l *takeoverLab) invalid(gw *netns.NS) (packets int) {
	l.t.Helper()
	out := l.must(gw, "nft", "list", "counter", "ip", "gateway", "invalid")
	_, count, _ := strings.Cut(out, "packets ")
	if _, err := fmt.Sscan(count, &packets); err != nil {
		l.t.Fatal(err)
	}
	return packets
}
