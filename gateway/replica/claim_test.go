package replica

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mdlayher/packet"

	"github.com/sallyport/sallyport/election/boottime"
	"github.com/sallyport/sallyport/vip"
)

// heartbeats renews the VIP's lease until the test ends, as an election does.
func heartbeats(t *testing.T, k *keeper, v vip.VIP) {
	ctx, cancel := context.WithCancel(t.Context())
	var beating sync.WaitGroup
	t.Cleanup(func() { cancel(); beating.Wait() })
	beating.Go(func() {
		for ctx.Err() == nil {
			k.lease(v, boottime.Now()+30*time.Second)
			select {
			case <-ctx.Done():
			case <-time.After(10 * time.Millisecond):
			}
		}
	})
}

// announced waits until the segment behind an interface has heard who has the address.
func announced(t *testing.T, iface string, addr netip.Addr) {
	t.Helper()
	link, err := net.InterfaceByName(iface)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := packet.Listen(link, packet.Raw, 0x0806, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	for frame := make([]byte, 128); ; {
		n, _, err := conn.ReadFrom(frame)
		if err != nil {
			t.Fatalf("no announcement of %s on %s: %v", addr, iface, err)
		}
		if n >= 42 && slices.Equal(frame[28:32], addr.AsSlice()) { // the sender's address, RFC 826
			return
		}
	}
}

// The claim comes while the interface is not there; when it is, the segment hears of it.
func TestAClaimIsTriedAgainUntilTheInterfaceIsThere(t *testing.T) {
	k, _, v, _ := keep(t)
	sh(t, "ip link del eth0")
	heartbeats(t, k, v)
	eventually(t, "the claim fails", func() bool { return strings.Contains(k.failures()[v.Addr.String()], "eth0") })
	sh(t, "ip link add eth0 type veth peer name far; ip link set eth0 up; ip link set far up; ip addr add 192.0.2.1/24 dev eth0; ip addr add 10.0.0.1/24 dev far")
	announced(t, "far", v.Addr)
	if !has(t, v.Addr) || !has(t, v.Via) {
		t.Error("announced without the addresses")
	}
	eventually(t, "no failure is told any more", func() bool { return len(k.failures()) == 0 })
}

// Somebody else's address is in the way and stays: the keeper says that it cannot.
func TestAKeeperThatCannotClaimSaysSo(t *testing.T) {
	unfit := make(chan string, 100)
	k, _, v, _ := keep(t, func(k *keeper) {
		k.unfit = func(_ vip.VIP, why string, _ time.Duration) { unfit <- why }
	})
	sh(t, "ip addr add 192.0.2.10/32 dev eth0")
	heartbeats(t, k, v)
	select {
	case why := <-unfit:
		if !strings.Contains(why, "the host has it from elsewhere: remove it there") {
			t.Errorf("says %q, want the cure", why)
		}
	case <-time.After(time.Minute):
		t.Fatal("tries for ever")
	}
}
