package gossip

import (
	"net/netip"
	"testing"
	"time"
)

// Members that were told of nobody find each other by SetPeers alone, and follow one
// that comes back under its name elsewhere.
func TestPeersAreJoinedAndFollowed(t *testing.T) {
	l := newLAN(t, 3)
	alone := func(c *Config) { c.Join, c.UnreachableAfter = nil, time.Second }
	a, b, c := l.start(0, alone), l.start(1, alone), l.start(2, alone)
	ips := func(last ...byte) (out []netip.Addr) {
		for _, n := range last {
			out = append(out, netip.AddrFrom4([4]byte{10, 55, 0, n}))
		}
		return out
	}
	a.SetPeers(ips(1, 2, 3)) // its own address is among them
	eventually(t, 10*time.Second, "all see all", func() bool {
		return a.sees("n1", "n2") && b.sees("n0", "n2") && c.sees("n0", "n1")
	})

	l.cut(2) // no farewell gets out
	c.stop()
	l.run(l.hosts[2], "ip", "address", "flush", "dev", "eth0")
	l.run(l.hosts[2], "ip", "address", "add", "10.55.0.77/24", "dev", "eth0")
	eventually(t, 15*time.Second, "the lost peer is named", func() bool {
		_, is := a.problem("Member n2", Unreachable)
		return is
	})
	l.heal(2)
	c = l.start(2, alone, func(c *Config) { c.Bind = netip.MustParseAddrPort("10.55.0.77:7946") })
	a.SetPeers(ips(1, 2, 77))
	b.SetPeers(ips(1, 2, 77))
	at := func(m *member, want string) bool {
		for _, x := range m.Members() {
			if x.Name == "n2" && x.Alive {
				return x.Addr.Addr().String() == want
			}
		}
		return false
	}
	eventually(t, 15*time.Second, "n2 is accepted where it is now", func() bool {
		return at(a, "10.55.0.77") && at(b, "10.55.0.77") && c.sees("n0", "n1")
	})
	hears(t, a, c, "moved")
	eventually(t, 10*time.Second, "the address that is no peer's any more is forgotten", func() bool {
		for _, p := range a.Problems() {
			if p.Reason == Unreachable {
				return false
			}
		}
		for _, x := range a.Members() {
			if x.Addr.Addr() == ips(3)[0] {
				return false
			}
		}
		return true
	})
}

// An address that --join has too stays when it is no peer's any more.
func TestAJoinAddressOutlivesThePeers(t *testing.T) {
	self := netip.MustParseAddrPort("10.55.0.1:7946")
	joined, only := netip.MustParseAddrPort("10.55.0.2:7946"), netip.MustParseAddrPort("10.55.0.3:7946")
	b, now := newBook("n0", self), time.Now()
	b.addJoin(joined, now)
	b.resolved(peers, []netip.AddrPort{self, joined, only}, now)
	b.forget(now.Add(2 * forgetAfter))
	if len(b.peers) != 2 {
		t.Fatalf("%d peers, want both", len(b.peers))
	}
	b.resolved(peers, nil, now)
	b.forget(now)
	if len(b.peers) != 1 || b.peers[joined] == nil {
		t.Errorf("peers %v, want only %s", b.addrs(), joined)
	}
}
