package sockops

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/mdlayher/packet"
)

// segment is what passed an interface of the two that matter here.
type segment struct {
	from, to netip.AddrPort
	synAck   bool
}

// syns gives SYNs and SYN-ACKs of IPv4 as they pass the interface, until the test ends.
func syns(t *testing.T, iface string) func() segment {
	t.Helper()
	link, err := net.InterfaceByName(iface)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := packet.Listen(link, packet.Raw, 0x0003, nil) // ETH_P_ALL
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	frame := make([]byte, 2048)
	return func() segment {
		t.Helper()
		if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		for {
			n, _, err := conn.ReadFrom(frame)
			if err != nil {
				t.Fatalf("no SYN on %s: %v", iface, err)
			}
			if ip := frame[14:n]; len(ip) >= 40 && binary.BigEndian.Uint16(frame[12:]) == 0x0800 && ip[9] == 6 {
				tcp := ip[4*int(ip[0]&15):]
				at := func(addr, port []byte) netip.AddrPort {
					return netip.AddrPortFrom(netip.AddrFrom4([4]byte(addr)), binary.BigEndian.Uint16(port))
				}
				if tcp[13]&0x02 != 0 {
					return segment{from: at(ip[12:16], tcp[0:2]), to: at(ip[16:20], tcp[2:4]), synAck: tcp[13]&0x10 != 0}
				}
			}
		}
	}
}

// Three connections are begun at one time. That of the route has sent its third SYN, 100
// ms apart, when the others send their second, after the kernel's second.
func TestTheSecondSYNComesSooner(t *testing.T) {
	w := newWorld(t)
	p := w.attach(100 * time.Millisecond)
	if err := p.Apply(oneRoute()); err != nil {
		t.Fatal(err)
	}
	next := syns(t, "far")
	routes, port80, elsewhere := port("10.9.0.1:1001"), port("10.9.0.1:1002"), port("10.9.0.1:1003")
	now := w.client(w.cgroup,
		dial{From: elsewhere, To: port("203.0.113.9:443")},
		dial{From: port80, To: port("203.0.113.5:80")},
		dial{From: routes, To: port("203.0.113.5:443")})
	retries := now()[2].Retries
	seen := map[netip.AddrPort]int{}
	for seen[port80] < 2 || seen[elsewhere] < 2 {
		s := next()
		if seen[s.from]++; s.from != routes && seen[s.from] == 2 && seen[routes] < 3 {
			t.Errorf("%s sends its second SYN after %d of the route's, want at least 3", s.from, seen[routes])
		}
	}
	if after := now()[2].Retries; after != retries {
		t.Errorf("%d retries after some of them, %d before: each adds to them", after, retries)
	}
}
