package layer2

import (
	"bytes"
	"net"
	"net/netip"
	"testing"
)

// On a kernel that keeps no address protocol, a host prefix of a VIP is ours and
// nothing else is.
func TestOurs(t *testing.T) {
	other := netip.MustParseAddr("192.0.2.11")
	for _, c := range []struct {
		a        address
		old, now bool
	}{
		{address{addr: addr, bits: 32, proto: addrProtocol}, true, true},
		{address{addr: other, bits: 32, proto: addrProtocol}, true, true}, // of a VIP that is no longer configured
		{address{addr: addr, bits: 32}, true, false},
		{address{addr: addr, bits: 24}, false, false},
		{address{addr: other, bits: 32}, false, false},
		{address{addr: addr, bits: 32, proto: 3}, false, false},
	} {
		if got := (&Host{}).ours(c.a, only); got != c.old {
			t.Errorf("old kernel: %+v is ours: %v", c.a, got)
		}
		if got := (&Host{protocols: true}).ours(c.a, only); got != c.now {
			t.Errorf("%+v is ours: %v", c.a, got)
		}
	}
	for release, want := range map[string]bool{
		"6.18.44-x": true, "5.18.0": true, "5.15.0-91-generic": false, "4.18.0-513.el8.x86_64": false,
		"10.1": true, "": false, "x.y": false, "6.1+": true,
	} {
		if got := keepsProtocol(release); got != want {
			t.Errorf("%q keeps the protocol: %v", release, got)
		}
	}
}

func FuzzParseARP(f *testing.F) {
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	f.Add(arpFrame(arpReply, mac, addr, broadcast, addr))
	f.Add(arpFrame(arpRequest, nil, netip.IPv4Unspecified(), nil, addr)[:41])
	f.Fuzz(func(t *testing.T, b []byte) {
		p, ok := parseARP(b)
		if !ok {
			return
		}
		again, ok := parseARP(arpFrame(p.op, p.sender, p.senderIP, nil, p.senderIP))
		if !ok || again.op != p.op || again.senderIP != p.senderIP || !bytes.Equal(again.sender, p.sender) {
			t.Fatalf("%+v written and read again is %+v", p, again)
		}
	})
}
