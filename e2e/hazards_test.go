package e2e

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/e2e/lab"
	"github.com/sallyport/sallyport/snat"
	"github.com/sallyport/sallyport/tunnel"
)

// innerMTU is what the tunnel leaves of the lab's 1500 bytes.
const innerMTU = 1500 - tunnel.Overhead

func TestSourcePortIsKeptOverAFailover(t *testing.T) {
	for _, netfilter := range []string{"nftables", "iptables"} {
		t.Run(netfilter, func(t *testing.T) {
			w := start(t, lab.Options{Netfilter: netfilter})
			holder := w.holder()
			pod := selected(w.Others(holder)[0])
			w.seenEventually(pod, partner, theVIP)
			e, err := w.StartEcho(pod, partner, 5*time.Millisecond)
			w.must(err)
			answered := func(after time.Time) {
				w.await(func() error {
					if _, ok := e.Report().NextReply(after); !ok {
						return errors.New("no echo")
					}
					return nil
				})
			}
			answered(time.Now())
			w.must(w.gateway(holder).Kill())
			w.awaitHolder(w.Others(holder)...)
			answered(time.Now())
			want := netip.AddrPortFrom(theVIP, e.Local().Port())
			for _, x := range e.Stop().Exchanges {
				if x.Source.IsValid() && x.Source != want {
					t.Fatalf("seen as %s, want %s", x.Source, want)
				}
			}
		})
	}
}

// fromPort asks the partner over UDP or TCP from a port of the pod's and gives what
// it was seen as.
func (w *world) fromPort(pod, network string, port uint16) netip.AddrPort {
	w.t.Helper()
	ns, err := w.Namespace(pod)
	w.must(err)
	var seen netip.AddrPort
	w.must(ns.Do(func() error {
		d := net.Dialer{Timeout: 3 * time.Second, Control: reuse}
		at, to := netip.AddrPortFrom(w.addrOf(pod), port), tcpTo(partner)
		d.LocalAddr = net.TCPAddrFromAddrPort(at)
		if network == "udp4" {
			d.LocalAddr, to = net.UDPAddrFromAddrPort(at), udpTo(partner)
		}
		c, err := d.Dial(network, to.String())
		if err != nil {
			return err
		}
		defer c.Close()
		buf := make([]byte, 64)
		if err := c.SetDeadline(time.Now().Add(3 * time.Second)); err != nil {
			return err
		}
		if network == "udp4" {
			if _, err := c.Write([]byte("12345678")); err != nil {
				return err
			}
		}
		n, err := c.Read(buf)
		if err != nil {
			return fmt.Errorf("from %s port %d: %w", network, port, err)
		}
		if network == "udp4" { // address and port come behind what was sent
			seen = netip.AddrPortFrom(netip.AddrFrom4([4]byte(buf[n-6:n-2])), uint16(buf[n-2])<<8|uint16(buf[n-1]))
			return nil
		}
		seen, err = netip.ParseAddrPort(strings.TrimSpace(string(buf[:n])))
		return err
	}))
	return seen
}

func reuse(_, _ string, c syscall.RawConn) error {
	var err error
	return errors.Join(c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}), err)
}

func TestNodePortsAreNeverSourcePorts(t *testing.T) {
	t.Parallel()
	for _, netfilter := range []string{"nftables", "iptables"} {
		t.Run(netfilter, func(t *testing.T) {
			t.Parallel()
			w := start(t, lab.Options{Netfilter: netfilter, GatewayArgs: unhurried})
			w.seenEventually(selected(1), partner, theVIP)
			for _, network := range []string{"udp4", "tcp4"} {
				for port, kept := range map[uint16]bool{20000: true, 29999: true, 30000: false, 30500: false, 32767: false, 32768: true, 50000: true} {
					seen := w.fromPort(selected(1), network, port)
					nodePort := 30000 <= seen.Port() && seen.Port() <= 32767
					if seen.Addr() != theVIP || nodePort || kept && seen.Port() != port {
						t.Errorf("%s from port %d is seen as %s", network, port, seen)
					}
				}
			}
		})
	}
}

func TestLargePacketsPass(t *testing.T) {
	t.Parallel()
	for _, netfilter := range []string{"nftables", "iptables"} {
		t.Run(netfilter, func(t *testing.T) {
			t.Parallel()
			// n2 has an agent only: a gateway on it would clamp what the agent must.
			w := start(t, lab.Options{Netfilter: netfilter, Nodes: 2, GatewayNodes: []int{1}})
			w.nft(lab.Router, fmt.Sprintf(clampRule, theVIP, innerMTU-40))
			for j := 1; j <= w.Options.Nodes; j++ {
				w.seenEventually(selected(j), partner, theVIP)
				w.transfers(selected(j), 4<<20)
				w.seesTheMTU(selected(j))
			}
			w.counted(lab.Router, []string{`"SYN"`}, []string{`"SYN too large"`})
			w.noLeak()
		})
	}
}

// seesTheMTU demands that the pod is told by ICMP what fits, when it sends a datagram
// of 1500 bytes that may not be fragmented.
func (w *world) seesTheMTU(pod string) {
	w.t.Helper()
	ns, err := w.Namespace(pod)
	w.must(err)
	var c *net.UDPConn
	w.must(ns.Do(func() error {
		c, err = net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(udpTo(partner)))
		return err
	}))
	defer c.Close()
	raw, err := c.SyscallConn()
	w.must(err)
	option := func(set func(fd int) error) {
		w.must(errors.Join(raw.Control(func(fd uintptr) { err = set(int(fd)) }), err))
	}
	option(func(fd int) error {
		return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
	})
	w.await(func() error {
		if _, err := c.Write(make([]byte, 1500-28)); !errors.Is(err, unix.EMSGSIZE) {
			return fmt.Errorf("a datagram of 1500 bytes: %v, want %v", err, unix.EMSGSIZE)
		}
		return nil
	})
	option(func(fd int) error {
		mtu, err := unix.GetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU)
		if err == nil && mtu != innerMTU {
			err = fmt.Errorf("the pod learnt an MTU of %d, want %d", mtu, innerMTU)
		}
		return err
	})
	// What fits arrives, and comes back. Late ICMP errors make the socket fail at first.
	w.await(func() error {
		if _, err := c.Write(make([]byte, innerMTU-28-6)); err != nil { // the echo is 6 bytes longer
			return err
		}
		return errors.Join(c.SetReadDeadline(time.Now().Add(time.Second)), func() error {
			_, err := c.Read(make([]byte, 2048))
			return err
		}())
	})
}

// clampRule counts connections whose SYN still offers segments that do not fit.
const clampRule = `
table ip watch {
	chain forward {
		type filter hook forward priority 0
		tcp flags & (syn | rst) == syn ip saddr %[1]s counter comment "SYN"
		tcp flags & (syn | rst) == syn ip saddr %[1]s tcp option maxseg size > %[2]d counter comment "SYN too large"
	}
}
`

// transfers echoes bytes through the partner, and demands that the pod was told a
// segment size that fits, before anything large was sent.
func (w *world) transfers(pod string, size int) {
	w.t.Helper()
	c, err := w.Dial(pod, tcpTo(partner), 3*time.Second)
	w.must(err)
	defer c.Close()
	raw, err := c.SyscallConn()
	w.must(err)
	w.must(errors.Join(raw.Control(func(fd uintptr) {
		var info *unix.TCPInfo
		if info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil && info.Snd_mss > innerMTU-40 {
			err = fmt.Errorf("%s was told segments of %d bytes, want at most %d", pod, info.Snd_mss, innerMTU-40)
		}
	}), err))
	w.must(c.SetDeadline(time.Now().Add(patience)))
	go func() {
		_, _ = c.Write(make([]byte, size))
		_ = c.CloseWrite()
	}()
	n, err := io.Copy(io.Discard, c)
	w.must(err)
	if n <= int64(size) {
		w.t.Errorf("%s got %d bytes back, want %d and the greeting", pod, n, size)
	}
}

// A new holder may know nothing of a connection whose partner talks: its segments
// belong to nothing, and a reset in answer would end it on both sides.
func TestNoResetWhileTheVIPMoves(t *testing.T) {
	for _, netfilter := range []string{"nftables", "iptables"} {
		t.Run(netfilter, func(t *testing.T) {
			w := start(t, lab.Options{Netfilter: netfilter, GatewayArgs: []string{"--replicate=false"}})
			holder := w.holder()
			pod := selected(w.Others(holder)[0])
			w.seenEventually(pod, partner, theVIP)
			s, err := w.StartListening(pod, partner)
			w.must(err)
			w.await(func() error {
				if len(s.Report().Answers()) < 10 {
					return errors.New("the partner does not push yet")
				}
				return nil
			})
			heard := w.listenFor(lab.PartnerHost, theVIP, unix.IPPROTO_TCP)
			w.must(w.gateway(holder).Kill())
			heir := w.awaitHolder(w.Others(holder)...)
			w.await(func() error {
				if n := w.dropped(lab.Gateway, heir)[snat.RefusedUnmatched].Packets; n == 0 {
					return fmt.Errorf("nothing of the connection came to n%d", heir)
				}
				return nil
			})
			_, err = w.Exec(lab.PartnerHost, "ping", "-c", "1", "-W", "3", theVIP.String())
			w.must(err)
			for _, segment := range heard() {
				if segment[33]&tcpRST != 0 {
					t.Errorf("the VIP answered with a reset: % x", segment)
				}
			}
			if s.Broken() != nil {
				t.Errorf("the connection broke: %v", s.Broken())
			}
		})
	}
}
