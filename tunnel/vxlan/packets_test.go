package vxlan

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/e2e/netns"
	"github.com/sallyport/sallyport/tunnel"
)

// lab is a pod behind node one, and host two, which has the partner's address and
// may have the VIP. The routes that pod and partner have besides the tunnel lead nowhere,
// so that an answer proves the tunnel.
type lab struct {
	t             *testing.T
	pod, one, two *netns.NS
	cfg           tunnel.Config
	up, down      tunnel.Plan
}

const (
	podAddr     = "10.244.1.10"
	partnerAddr = "203.0.113.5"
)

func newLab(t *testing.T) *lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root for network namespaces")
	}
	l := &lab{t: t, cfg: tunnel.DefaultConfig()}
	for _, n := range []struct {
		name string
		ns   **netns.NS
	}{{"p", &l.pod}, {"n1", &l.one}, {"n2", &l.two}} {
		ns, err := netns.New(fmt.Sprintf("spt-vx%d-%s", os.Getpid(), n.name))
		if err != nil {
			t.Fatal(err)
		}
		*n.ns = ns
		t.Cleanup(func() {
			if err := ns.Close(); err != nil {
				t.Error(err)
			}
		})
		l.sh(ns, "ip link set lo up")
	}
	l.sh(l.one, fmt.Sprintf(`ip link add eth0 type veth peer name eth0 netns %s
ip link add pod0 type veth peer name eth0 netns %s
ip addr add 192.0.2.1/24 dev eth0; ip link set eth0 up
ip addr add 10.244.1.1/24 dev pod0; ip link set pod0 up
ip route add 203.0.113.0/24 via 192.0.2.254
sysctl -qw net.ipv4.ip_forward=1`, l.two.Name, l.pod.Name))
	l.sh(l.two, `ip addr add 192.0.2.2/24 dev eth0; ip link set eth0 up; ip addr add 203.0.113.5/32 dev lo
ip route add 10.244.1.0/24 via 192.0.2.254
sysctl -qw net.ipv4.ip_forward=1`)
	l.sh(l.pod, `ip addr add 10.244.1.10/24 dev eth0; ip link set eth0 up; ip route add default via 10.244.1.1`)
	l.up = up(t, l.cfg, vipA)
	l.down = l.cfg.Downward(netip.MustParseAddr("192.0.2.2"), maps.All(map[netip.Addr]netip.Addr{netip.MustParseAddr(podAddr): local}))
	return l
}

func (l *lab) sh(ns *netns.NS, script string) string {
	l.t.Helper()
	out, err := ns.Run("sh", "-ec", script)
	if err != nil {
		l.t.Fatal(err)
	}
	return out
}

func (l *lab) applier(ns *netns.NS) *Applier {
	l.t.Helper()
	var a *Applier
	err := ns.Do(func() (err error) {
		a, err = New(l.cfg, slog.New(slog.DiscardHandler))
		return err
	})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() {
		if err := a.Close(); err != nil {
			l.t.Error(err)
		}
	})
	return a
}

// steer marks what the pod sends to the partner.
func (l *lab) steer() {
	l.sh(l.one, fmt.Sprintf(`nft 'table ip steer { chain c { type filter hook prerouting priority mangle;
iifname pod0 ip daddr %s meta mark set %#x; }; }'`, partnerAddr, l.up.Rules[0].Value))
}

// twoHosts is the way over host two, which has the VIP.
func (l *lab) twoHosts() (one, two *Applier) {
	l.t.Helper()
	l.sh(l.two, "ip addr add 192.0.2.10/32 dev eth0")
	l.steer()
	one, two = l.applier(l.one), l.applier(l.two)
	apply(l.t, one, l.up)
	apply(l.t, two, l.down)
	l.echo(l.down.Rules[0].Value)
	return one, two
}

// echo answers at the partner's address; its packets carry the mark.
func (l *lab) echo(mark uint32) {
	l.t.Helper()
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		return errors.Join(c.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, int(mark))
		}), err)
	}}
	var server net.PacketConn
	err := l.two.Do(func() (err error) {
		server, err = lc.ListenPacket(context.Background(), "udp4", partnerAddr+":7")
		return err
	})
	if err != nil {
		l.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 2000)
		for {
			n, from, err := server.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = server.WriteTo(buf[:n], from) // a packet that cannot be sent is one that is lost
		}
	}()
	l.t.Cleanup(func() { _ = server.Close(); <-done })
}

// dial gives the pod a socket to the partner whose packets may not be fragmented.
func (l *lab) dial() *net.UDPConn {
	l.t.Helper()
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) (err error) {
		return errors.Join(c.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
		}), err)
	}}
	var c net.Conn
	err := l.pod.Do(func() (err error) {
		c, err = d.Dial("udp4", partnerAddr+":7")
		return err
	})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { _ = c.Close() })
	return c.(*net.UDPConn)
}

// An answer that should come may take long on a busy machine; one that should not
// come is waited for only so long as to see it on an idle one.
const (
	patience   = 10 * time.Second
	impatience = 400 * time.Millisecond
)

// answered sends a packet of so many payload bytes and waits for its echo.
func (l *lab) answered(size int, wait time.Duration) error {
	l.t.Helper()
	c := l.dial()
	if _, err := c.Write(make([]byte, size)); err != nil {
		return err
	}
	if err := c.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return err
	}
	n, err := c.Read(make([]byte, 2000))
	if err == nil && n != size {
		err = fmt.Errorf("%d bytes came back of %d", n, size)
	}
	return err
}

func (l *lab) mustAnswer(when string) {
	l.t.Helper()
	if err := l.answered(100, patience); err != nil {
		l.t.Errorf("%s: the pod gets no answer: %v", when, err)
	}
}

func (l *lab) mustNotAnswer(when string) {
	l.t.Helper()
	if err := l.answered(100, impatience); !errors.Is(err, os.ErrDeadlineExceeded) {
		l.t.Errorf("%s: the pod got an answer, or another error than none: %v", when, err)
	}
}

// stat reads a counter of `nstat` (/proc/net/snmp and netstat).
func (l *lab) stat(ns *netns.NS, name string) int {
	l.t.Helper()
	for line := range strings.Lines(l.sh(ns, "nstat -asz "+name)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == name {
			n, err := strconv.Atoi(f[1])
			if err != nil {
				l.t.Fatal(err)
			}
			return n
		}
	}
	l.t.Fatalf("no counter %s", name)
	return 0
}

func (l *lab) collisions(ns *netns.NS) int {
	l.t.Helper()
	n, err := strconv.Atoi(strings.TrimSpace(l.sh(ns, "cat /sys/class/net/sally0/statistics/collisions")))
	if err != nil {
		l.t.Fatal(err)
	}
	return n
}

func TestPacketsBetweenTwoHosts(t *testing.T) {
	l := newLab(t)
	one, _ := l.twoHosts()
	l.mustAnswer("over the tunnel")
	l.sh(l.one, "sysctl -qw net.ipv4.conf.all.rp_filter=1")
	l.mustAnswer("with all.rp_filter=1")
	if problems := one.Check(); len(problems) != 0 {
		t.Errorf("a working host has problems: %v", problems)
	}
	if err := one.Remove(t.Context(), l.up); err != nil {
		t.Fatal(err)
	}
	l.mustNotAnswer("after Remove")
}

// The outer packet inherits the mark. Without the throw route it is routed into
// its own tunnel.
func TestWithoutThrowTheTunnelLoops(t *testing.T) {
	l := newLab(t)
	one, _ := l.twoHosts()
	table := l.up.Rules[0].Table
	before := l.collisions(l.one)
	l.mustAnswer("with throw")
	if n := l.collisions(l.one); n != before {
		t.Errorf("%d packets looped with the throw route in place", n-before)
	}
	l.sh(l.one, fmt.Sprintf("ip route del table %d throw 192.0.2.10/32", table))
	l.mustNotAnswer("without throw")
	if l.collisions(l.one) == before {
		t.Error("without throw nothing looped: is the hazard gone?")
	}
	apply(t, one, l.up)
	l.mustAnswer("after the repair")
}

func TestReversePathFilter(t *testing.T) {
	const dropped = "TcpExtIPReversePathFilter"
	for _, c := range []struct{ name, harm string }{
		{"strict", "sysctl -qw net.ipv4.conf.sally0.rp_filter=1"},
		// With its last address a device loses its routes: put ours back.
		{"no address", fmt.Sprintf(`f=$(mktemp); ip route save table %[1]d >$f; ip addr flush dev sally0
ip route flush table %[1]d; ip route restore <$f; rm $f`, up(t, tunnel.DefaultConfig(), vipA).Rules[0].Table)},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t)
			one, _ := l.twoHosts()
			l.mustAnswer("as applied")
			before := l.stat(l.one, dropped)
			l.sh(l.one, c.harm)
			l.mustNotAnswer(c.name)
			if l.stat(l.one, dropped) == before {
				t.Errorf("%s did not count", dropped)
			}
			apply(t, one, l.up)
			l.mustAnswer("after the repair")
		})
	}
}

func TestInnerMTU(t *testing.T) {
	const headers = 28 // IPv4 and UDP
	l := newLab(t)
	l.twoHosts()
	c := l.dial()
	if _, err := c.Write(make([]byte, 1500-headers)); err != nil {
		t.Fatal(err)
	}
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 2000)); !errors.Is(err, unix.EMSGSIZE) {
		t.Fatalf("a packet of 1500 bytes gave %v, not fragmentation needed", err)
	}
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	mtu := 0
	if err := errors.Join(raw.Control(func(fd uintptr) {
		mtu, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU)
	}), err); err != nil {
		t.Fatal(err)
	}
	if mtu != 1500-tunnel.Overhead {
		t.Errorf("the pod was told MTU %d", mtu)
	}
	if err := l.answered(mtu-headers, patience); err != nil {
		t.Errorf("a packet of %d bytes: %v", mtu, err)
	}
	if n := l.stat(l.one, "IpFragCreates"); n != 0 {
		t.Errorf("%d outer fragments", n)
	}
}

// The holder's own pods: the remote is an address of this host, and everything
// passes lo. The partner's own host knows nothing of a tunnel here.
func TestPacketsOnOneHost(t *testing.T) {
	l := newLab(t)
	l.sh(l.one, `ip addr add 192.0.2.10/32 dev eth0; ip route replace 203.0.113.0/24 via 192.0.2.2`)
	l.sh(l.two, `ip route replace 10.244.1.0/24 via 192.0.2.1`)
	l.steer()
	agent, gate := l.applier(l.one), l.applier(l.one)
	l.down.Local = local
	apply(t, agent, l.up)
	apply(t, gate, l.down)
	l.echo(0)
	l.sh(l.one, fmt.Sprintf(`nft 'table ip back { chain c { type filter hook prerouting priority mangle;
iifname eth0 ip saddr %s meta mark set %#x; }; }'`, partnerAddr, l.down.Rules[0].Value))
	l.mustNotAnswer("while the mark outlives decapsulation")
	l.sh(l.one, `nft 'table ip clear { chain c { type filter hook prerouting priority mangle - 1; iifname sally0 meta mark set 0; }; }'`)
	tunnelled := func() int {
		n, err := strconv.Atoi(strings.TrimSpace(l.sh(l.one, "cat /sys/class/net/sally0/statistics/rx_packets")))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := tunnelled()
	l.mustAnswer("on one host")
	if n := tunnelled() - before; n != 2 {
		t.Errorf("%d packets came out of the tunnel, not the question and the answer", n)
	}
	// The agent going away takes nothing from the gateway, and the other way round.
	if err := agent.Remove(t.Context(), l.up); err != nil {
		t.Fatal(err)
	}
	if n := writes(gate, func() { apply(t, gate, l.down) }); n != 0 {
		t.Errorf("the agent's removal cost the gateway %d messages of repair", n)
	}
}
