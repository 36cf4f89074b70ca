package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/e2e/lab"
)

// What the network says of packets that went beside netfilter reaches their pod: that they are too large for the
// gateway's way out, or for one behind it, and that their time to live was over, wherever that was. What has IP
// options passes netfilter. A reset ends a connection on both sides, whoever sends it.
func TestErrorsOfWhatGoesBesideNetfilterReachThePod(t *testing.T) {
	t.Parallel()
	for _, netfilter := range []string{"nftables", "iptables"} {
		t.Run(netfilter, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, lab.Options{Netfilter: netfilter, TwoNetworks: true, Nodes: 2, GatewayNodes: []int{1}, AgentArgs: fastPath, GatewayArgs: slices.Concat(unhurried, fastPath)})
			w.must(w.Annotate(unselected(2), "payments"))
			w.begin()
			pod := selected(2)
			w.seenEventually(pod, partner, theVIP)
			w.seenEventually(unselected(2), partner, theVIP)
			s := w.option(w.speaker(pod), unix.IP_RECVERR, 1)
			w.carried(s)

			before := w.beside(2).PacketsOut
			raw, err := s.SyscallConn()
			w.must(err)
			options := func(b string) {
				w.must(errors.Join(raw.Control(func(fd uintptr) { err = unix.SetsockoptString(int(fd), unix.IPPROTO_IP, unix.IP_OPTIONS, b) }), err))
			}
			options("\x01\x01\x01\x01")
			for range 20 {
				w.await(func() error { return ask(s, []byte("with options")) })
			}
			if now := w.beside(2).PacketsOut; now != before {
				t.Errorf("%d packets with options went beside netfilter", now-before)
			}
			options("")
			for hop, where := range []string{"the pod's node", "the gateway", "the router"} {
				w.carried(s)
				w.option(s, unix.IP_TTL, hop+1)
				before := []uint64{w.beside(2).PacketsOut, w.besideAt(1).PacketsOut, 0}
				w.await(func() error {
					err := ask(s, []byte(where))
					if err == nil {
						t.Fatalf("what was past its time to live at %s is answered", where)
					}
					if !errors.Is(err, unix.EHOSTUNREACH) {
						return fmt.Errorf("past its time to live at %s: %w", where, err)
					}
					return nil
				})
				if after := []uint64{w.beside(2).PacketsOut, w.besideAt(1).PacketsOut, 0}; after[hop] != before[hop] {
					t.Errorf("%s: %d packets whose time to live was over went beside netfilter", where, after[hop]-before[hop])
				}
				w.option(s, unix.IP_TTL, 64)
			}

			stream := w.startContent(unselected(2))
			w.option(s, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
			for _, narrow := range []struct {
				mtu   int
				links [][2]string
			}{
				{1300, [][2]string{{lab.NodeName(1), "eth0"}, {lab.Router, "eth0"}}},
				{1200, [][2]string{{lab.Router, "eth1"}, {lab.PartnerHost, "eth0"}}},
			} {
				w.carried(s)
				stream.goesOn()
				for _, l := range narrow.links {
					_, err := w.Exec(l[0], "ip", "link", "set", l[1], "mtu", fmt.Sprint(narrow.mtu))
					w.must(err)
				}
				w.await(func() error {
					err := ask(s, make([]byte, narrow.mtu+50-28)) // which fitted before
					if !errors.Is(err, unix.EMSGSIZE) {
						return fmt.Errorf("50 bytes more than the %d that fit: %v", narrow.mtu, err)
					}
					return nil
				})
				var mtu int
				w.must(errors.Join(raw.Control(func(fd uintptr) { mtu, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU) }), err))
				if mtu != narrow.mtu {
					t.Errorf("the pod learnt an MTU of %d, want %d", mtu, narrow.mtu)
				}
				stream.goesOn()
				w.passesBeside(1)
			}
			stream.stop()
			for _, by := range []string{"pod", "partner"} {
				w.resets(pod, by)
			}
			w.noLeak()
		})
	}
}

// carried waits until a hundred more of the datagrams went beside netfilter on both hosts.
func (w *world) carried(s *net.UDPConn) {
	w.t.Helper()
	node, gateway := w.beside(2), w.besideAt(1)
	w.await(func() error {
		for range 20 {
			_ = ask(s, []byte("hello"))
		}
		if n, g := w.beside(2), w.besideAt(1); n.PacketsOut < node.PacketsOut+100 || g.PacketsIn < gateway.PacketsIn+100 {
			return fmt.Errorf("n2 %+v, n1 %+v, before %+v and %+v", n, g, node, gateway)
		}
		return nil
	})
}

func (w *world) option(c *net.UDPConn, option, value int) *net.UDPConn {
	w.t.Helper()
	raw, err := c.SyscallConn()
	w.must(err)
	w.must(errors.Join(raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, option, value) }), err))
	return c
}

// ask sends a datagram and waits for its answer, or for an error.
func ask(c *net.UDPConn, what []byte) error {
	if _, err := c.Write(what); err != nil {
		return err
	}
	_ = c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	for answer := make([]byte, 2048); ; {
		if n, err := c.Read(answer); err != nil || bytes.HasPrefix(answer[:n], what) {
			return err
		}
	}
}

// resets has one side abort a connection that goes beside netfilter, and demands that the other hears of it.
func (w *world) resets(pod, by string) {
	w.t.Helper()
	ns, err := w.Namespace(lab.PartnerHost)
	w.must(err)
	at := netip.AddrPortFrom(partner, 9100)
	var listening net.Listener
	w.must(ns.Do(func() error { listening, err = net.Listen("tcp4", at.String()); return err }))
	defer listening.Close()
	inside, err := w.Dial(pod, at, patience)
	w.must(err)
	defer inside.Close()
	accepted, err := listening.Accept()
	w.must(err)
	outside := accepted.(*net.TCPConn)
	defer outside.Close()
	before := w.besideAt(1)
	buf := make([]byte, 1<<10)
	w.await(func() error { // to and fro
		for range 20 {
			for _, way := range [][2]*net.TCPConn{{inside, outside}, {outside, inside}} {
				if _, err := way[0].Write(buf[:1]); err != nil {
					return err
				}
				if _, err := way[1].Read(buf); err != nil {
					return err
				}
			}
		}
		if now := w.besideAt(1); now.PacketsOut < before.PacketsOut+100 || now.PacketsIn < before.PacketsIn+100 {
			return fmt.Errorf("%+v, before %+v", now, before)
		}
		return nil
	})
	aborts, hears := inside, outside
	if by == "partner" {
		aborts, hears = outside, inside
	}
	w.must(aborts.SetLinger(0))
	w.must(aborts.Close())
	w.must(hears.SetDeadline(time.Now().Add(patience)))
	if _, err := hears.Read(buf); !errors.Is(err, unix.ECONNRESET) {
		w.t.Errorf("the %s reset the connection, and the other side read %v", by, err)
	}
}
