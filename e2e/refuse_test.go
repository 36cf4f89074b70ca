package e2e

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/e2e/lab"
	"github.com/sallyport/sallyport/netfilter"
	"github.com/sallyport/sallyport/snat"
	"github.com/sallyport/sallyport/steer"
)

var otherVIP = netip.MustParseAddr("192.0.2.11")

// refusal is a packet that somebody is not to translate.
type refusal struct {
	name   string
	send   func(w *world)
	role   lab.Role
	node   func(w *world) int // whose counter rises
	reason string
}

func (w *world) holderOf(vip netip.Addr) int {
	w.t.Helper()
	holder := 0
	w.await(func() error {
		for _, j := range w.Options.GatewayNodes {
			for _, v := range w.status(lab.Gateway, j).VIPs {
				if v.VIP == vip && v.Held {
					holder = j
					return nil
				}
			}
		}
		return fmt.Errorf("nobody holds %s", vip)
	})
	return holder
}

func holderOfTheVIP(w *world) int { return w.holderOf(theVIP) }

func (w *world) addrOf(pod string) netip.Addr {
	w.t.Helper()
	p, err := w.Pod(pod)
	w.must(err)
	return p.Addr
}

func (w *world) dropped(role lab.Role, j int) map[string]netfilter.Counts {
	w.t.Helper()
	return w.status(role, j).Dropped
}

// tunnelByHand leads a pod's packets to a destination into the tunnel, as somebody
// with access to its node could.
func (w *world) tunnelByHand(j int, pod string, to netip.Addr) {
	w.t.Helper()
	for _, args := range []string{
		fmt.Sprintf("route replace table 99 %s encap ip id 51 src %s dst %s dev sally0", to, w.NodeIP(j), theVIP),
		fmt.Sprintf("rule add priority 50 from %s lookup 99", w.addrOf(pod)),
	} {
		_, err := w.Exec(lab.NodeName(j), "ip", strings.Fields(args)...)
		w.must(err)
	}
	w.t.Cleanup(func() {
		for _, args := range []string{"rule del priority 50", "route flush table 99"} {
			_, err := w.Exec(lab.NodeName(j), "ip", strings.Fields(args)...)
			w.must(err)
		}
	})
}

func udpTo(a netip.Addr) netip.AddrPort { return netip.AddrPortFrom(a, lab.UDPPort) }
func tcpTo(a netip.Addr) netip.AddrPort { return netip.AddrPortFrom(a, lab.TCPPort) }

// inner is a datagram that would be translated if it came from the pod's node.
func (w *world) inner(pod string) []byte {
	return udpPacket(netip.AddrPortFrom(w.addrOf(pod), 20000), udpTo(partner), "12345678")
}

var refusals = []refusal{
	{
		name: "an unselected pod, tunnelled by hand on another node",
		send: func(w *world) {
			j := w.Others(w.holder())[0]
			w.tunnelByHand(j, unselected(j), partner)
			w.sendDatagram(unselected(j), udpTo(partner), []byte("12345678"))
		},
		role: lab.Gateway, node: holderOfTheVIP, reason: snat.RefusedSource,
	},
	{
		name: "an unselected pod, tunnelled by hand on the holder's own node",
		send: func(w *world) {
			j := w.holder()
			w.tunnelByHand(j, unselected(j), partner)
			w.sendDatagram(unselected(j), udpTo(partner), []byte("12345678"))
		},
		role: lab.Gateway, node: holderOfTheVIP, reason: snat.RefusedSource,
	},
	{
		name: "a selected pod to a destination of no route",
		send: func(w *world) {
			j := w.Others(w.holder())[0]
			w.tunnelByHand(j, selected(j), lab.PublicAddr)
			w.sendDatagram(selected(j), udpTo(lab.PublicAddr), []byte("12345678"))
		},
		role: lab.Gateway, node: holderOfTheVIP, reason: snat.RefusedDestination,
	},
	{
		name: "a tunnel packet whose outer source is no node",
		send: func(w *world) { w.sendTunnelled(lab.Router, theVIP, w.inner(selected(1))) },
		role: lab.Gateway, node: holderOfTheVIP, reason: snat.RefusedPeer,
	},
	{
		name: "the end of a connection that nobody knows",
		send: func(w *world) {
			pod := selected(w.Others(w.holder())[0])
			w.sendRaw(pod, tcpPacket(netip.AddrPortFrom(w.addrOf(pod), 20001), tcpTo(partner), tcpFIN|tcpACK))
		},
		role: lab.Gateway, node: holderOfTheVIP, reason: snat.RefusedInvalid,
	},
	{
		name: "a segment with impossible flags, from the holder's own node",
		send: func(w *world) {
			pod := selected(w.holder())
			w.sendRaw(pod, tcpPacket(netip.AddrPortFrom(w.addrOf(pod), 20002), tcpTo(partner), tcpSYN|tcpFIN))
		},
		role: lab.Gateway, node: holderOfTheVIP, reason: snat.RefusedInvalid,
	},
	{
		name: "a packet sent to another VIP than its route's",
		send: func(w *world) {
			j := w.Others(w.holderOf(otherVIP))[0]
			w.sendTunnelled(lab.NodeName(j), otherVIP, w.inner(selected(j)))
		},
		role: lab.Gateway, node: func(w *world) int { return w.holderOf(otherVIP) }, reason: snat.RefusedVIP,
	},
	{
		name: "a tunnel packet from a stranger to a node",
		send: func(w *world) { w.sendTunnelled(lab.Router, w.NodeIP(2), w.inner(selected(1))) },
		role: lab.Agent, node: func(*world) int { return 2 }, reason: steer.Stranger,
	},
}

func TestRefusedAndCounted(t *testing.T) {
	t.Parallel()
	for _, netfilter := range []string{"nftables", "iptables"} {
		t.Run(netfilter, func(t *testing.T) {
			t.Parallel()
			w := start(t, lab.Options{Netfilter: netfilter, VIPs: []netip.Addr{theVIP, otherVIP}, GatewayArgs: unhurried})
			w.seenEventually(selected(1), partner, theVIP)
			w.awaitAdmitted()
			for _, r := range refusals {
				t.Run(r.name, func(t *testing.T) {
					w := &world{Lab: w.Lab, t: t, arp: w.arp}
					w.Partner.Forget()
					w.must(w.Partner.ForgetRefused())
					j := r.node(w)
					before := w.dropped(r.role, j)
					r.send(w)
					w.await(func() error {
						if now := w.dropped(r.role, j); now[r.reason].Packets <= before[r.reason].Packets {
							return fmt.Errorf("%s has not risen from %d on n%d: %v", r.reason, before[r.reason].Packets, j, now)
						}
						return nil
					})
					for reason, n := range w.dropped(r.role, j) {
						if reason != r.reason && n.Packets != before[reason].Packets {
							t.Errorf("%s rose too, from %d to %d", reason, before[reason].Packets, n.Packets)
						}
					}
					w.sees(selected(1), partner, theVIP) // whatever got through is there by now
					if seen := w.Partner.Seen(lab.ServiceUDP); len(seen) > 0 {
						t.Errorf("the partner was reached from %v", seen)
					}
					w.noLeak()
				})
			}
		})
	}
}

// awaitAdmitted waits until the forged packet is translated when a node sends it:
// what refuses it elsewhere is its origin, and not a fault in the forgery.
func (w *world) awaitAdmitted() {
	w.t.Helper()
	from := w.Others(w.holder())[0]
	w.await(func() error {
		w.sendTunnelled(lab.NodeName(from), theVIP, w.inner(selected(from)))
		if n := w.Partner.Seen(lab.ServiceUDP)[theVIP]; n == 0 {
			return errors.New("a packet forged by a node is not translated")
		}
		return nil
	})
	w.sees(selected(from), partner, theVIP) // what was sent before this is at the partner's by now
	w.heardOut(selected(from))
}

// heardOut waits until the partner has counted the datagrams that are there: its server
// answers them one after the other.
func (w *world) heardOut(from string) {
	w.t.Helper()
	ns, err := w.Namespace(from)
	w.must(err)
	var c net.Conn
	w.must(ns.Do(func() (err error) {
		c, err = net.Dial("udp4", udpTo(partner).String())
		return err
	}))
	defer func() { _ = c.Close() }()
	w.must(c.SetDeadline(time.Now().Add(patience)))
	_, err = c.Write([]byte("12345678"))
	w.must(err)
	_, err = c.Read(make([]byte, 100))
	w.must(err)
}

// What belongs to no connection is dropped in silence: a reset, or an ICMP error,
// would end a connection that a takeover is about to save.
func TestTheVIPIsSilentToWhatBelongsToNoConnection(t *testing.T) {
	t.Parallel()
	for _, netfilter := range []string{"nftables", "iptables"} {
		t.Run(netfilter, func(t *testing.T) {
			t.Parallel()
			w := start(t, lab.Options{Netfilter: netfilter, GatewayArgs: unhurried})
			holder := w.holder()
			w.seenEventually(selected(1), partner, theVIP)
			from, to := netip.AddrPortFrom(partner, lab.TCPPort), netip.AddrPortFrom(theVIP, 40000)
			for name, packet := range map[string][]byte{
				"a new TCP connection":     tcpPacket(from, to, tcpSYN),
				"a TCP segment mid-stream": tcpPacket(from, to, tcpACK),
				"the end of a connection":  tcpPacket(from, to, tcpFIN|tcpACK),
				"a UDP datagram":           udpPacket(udpTo(partner), to, "12345678"),
			} {
				t.Run(name, func(t *testing.T) {
					w := &world{Lab: w.Lab, t: t, arp: w.arp}
					answers := w.listenFor(lab.PartnerHost, theVIP, unix.IPPROTO_TCP, unix.IPPROTO_ICMP)
					before := w.dropped(lab.Gateway, holder)[snat.RefusedUnmatched].Packets
					w.sendRaw(lab.PartnerHost, packet)
					w.await(func() error {
						if n := w.dropped(lab.Gateway, holder)[snat.RefusedUnmatched].Packets; n <= before {
							return fmt.Errorf("%s has not risen from %d", snat.RefusedUnmatched, n)
						}
						return nil
					})
					// The answer to a ping comes after whatever the packet was answered with.
					_, err := w.Exec(lab.PartnerHost, "ping", "-c", "1", "-W", "3", theVIP.String())
					w.must(err)
					for _, a := range answers() {
						tcp := a[9] == unix.IPPROTO_TCP
						if tcp && sourcePort(a) == to.Port() || !tcp && a[20] != icmpEchoReply {
							t.Errorf("the VIP answered: % x", a)
						}
					}
				})
			}
		})
	}
}

const icmpEchoReply = 0

func sourcePort(packet []byte) uint16 { return uint16(packet[20])<<8 | uint16(packet[21]) }

// listenFor begins to receive packets of the protocols that come to a host from an
// address; calling what it returns gives them, with their headers.
func (w *world) listenFor(host string, from netip.Addr, protocols ...int) func() [][]byte {
	w.t.Helper()
	ns, err := w.Namespace(host)
	w.must(err)
	var sockets []int
	w.must(ns.Do(func() error {
		for _, p := range protocols {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, p)
			if err != nil {
				return err
			}
			sockets = append(sockets, fd)
		}
		return nil
	}))
	return func() [][]byte {
		var packets [][]byte
		for _, fd := range sockets {
			for {
				buf := make([]byte, 2048)
				n, err := unix.Read(fd, buf)
				if err != nil {
					break
				}
				if n > 20 && netip.AddrFrom4([4]byte(buf[12:16])) == from {
					packets = append(packets, buf[:n])
				}
			}
			_ = unix.Close(fd)
		}
		return packets
	}
}

// watchRules count what a node has done to packets of two pods: marked them or their
// connection, clamped their segments, or tunnelled them. The mark is looked at once
// the packet is routed, before it is taken off again; the rest behind everything of ours.
const watchRules = `
table ip watch {
	chain routed {
		type filter hook forward priority -200
		ip saddr %[1]s meta mark and 0x1f00 != 0 counter comment "unselected touched"
		ip saddr %[2]s meta mark and 0x1f00 != 0 counter comment "selected touched"
	}
	chain forward {
		type filter hook forward priority 300
		ip saddr %[1]s counter comment "unselected"
		ip saddr %[1]s ct mark and 0x1f00 != 0 counter comment "unselected touched"
		ip saddr %[1]s oifname "sally0" counter comment "unselected touched"
		ip saddr %[1]s tcp flags & (syn | rst) == syn tcp option maxseg size != 1460 counter comment "unselected touched"
	}
}
`

func TestUnselectedPodsAreNotTouchedOnTheirNode(t *testing.T) {
	t.Parallel()
	for _, netfilter := range []string{"nftables", "iptables"} {
		t.Run(netfilter, func(t *testing.T) {
			t.Parallel()
			w := start(t, lab.Options{Netfilter: netfilter, GatewayArgs: unhurried})
			j := w.holder() // where gateway and agent both have their rules
			w.seenEventually(selected(j), partner, theVIP)
			w.nft(lab.NodeName(j), fmt.Sprintf(watchRules, w.addrOf(unselected(j)), w.addrOf(selected(j))))
			w.sees(unselected(j), lab.PublicAddr, w.NodeIP(j))
			w.silent(unselected(j))
			_, err := w.Exec(unselected(j), "ping", "-c", "1", "-W", "3", w.addrOf(unselected(j%3+1)).String())
			w.must(err)
			e, err := w.StartEcho(unselected(j), lab.PublicAddr, 5*time.Millisecond)
			w.must(err)
			w.await(func() error {
				if len(e.Report().Answers()) < 10 {
					return errors.New("too few echoes")
				}
				return nil
			})
			e.Stop()
			w.sees(selected(j), partner, theVIP)
			w.counted(lab.NodeName(j), []string{`"unselected"`, `"selected touched"`}, []string{`"unselected touched"`})
		})
	}
}

// nft loads rules of the test's own on a host of the lab.
func (w *world) nft(host, rules string) {
	w.t.Helper()
	ns, err := w.Namespace(host)
	w.must(err)
	nft := ns.Command("nft", "-f", "-")
	nft.Stdin = strings.NewReader(rules)
	if out, err := nft.CombinedOutput(); err != nil {
		w.t.Fatalf("nft on %s: %v: %s", host, err, out)
	}
}

// counted demands that the rules with some comments in the table "watch" of a host
// have counted something, and those with others nothing.
func (w *world) counted(host string, some, none []string) {
	w.t.Helper()
	listing, err := w.Exec(host, "nft", "list", "table", "ip", "watch")
	w.must(err)
	for line := range strings.Lines(listing) {
		has := func(comment string) bool { return strings.Contains(line, "comment "+comment) }
		zero := strings.Contains(line, "packets 0 ")
		if zero && slices.ContainsFunc(some, has) || !zero && slices.ContainsFunc(none, has) {
			w.t.Errorf("on %s: %s", host, strings.TrimSpace(line))
		}
	}
}
