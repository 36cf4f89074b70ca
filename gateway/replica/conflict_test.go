package replica

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mdlayher/packet"

	"github.com/sallyport/sallyport/e2e/netns"
	"github.com/sallyport/sallyport/election/boottime"
	"github.com/sallyport/sallyport/vip"
	"github.com/sallyport/sallyport/vip/layer2"
)

// neighbour is a foreign host on the segment: it speaks as it likes and counts what it is told.
type neighbour struct {
	conn   *packet.Conn
	told   atomic.Int32 // announcements of the VIP, each of a request and a reply
	frames sync.WaitGroup
}

// claims says with some MAC that the VIP is there.
func (n *neighbour) claims(t *testing.T, last byte) {
	t.Helper()
	mac := net.HardwareAddr{2, 0, 0, 0, 0x66, last}
	frame := []byte{0: 0xff, 1: 0xff, 2: 0xff, 3: 0xff, 4: 0xff, 5: 0xff, 12: 8, 13: 6, 15: 1, 16: 8, 18: 6, 19: 4, 21: 1, 41: 0}
	copy(frame[6:], mac)
	copy(frame[22:], mac)
	copy(frame[28:], one.Addr.AsSlice())
	copy(frame[38:], one.Addr.AsSlice())
	if _, err := n.conn.WriteTo(frame, &packet.Addr{HardwareAddr: net.HardwareAddr(frame[:6])}); err != nil {
		t.Fatal(err)
	}
}

func (n *neighbour) listen() {
	for frame := make([]byte, 128); ; {
		size, _, err := n.conn.ReadFrom(frame)
		if err != nil {
			return
		}
		if size >= 42 && frame[22+4] != 0x66 && netip.AddrFrom4([4]byte(frame[28:32])) == one.Addr && netip.AddrFrom4([4]byte(frame[38:42])) == one.Addr {
			n.told.Add(1)
		}
	}
}

// A foreign host that claims the VIP is named, and told once in each interval that it
// is ours; what may be the last holder's word is not.
func TestAForeignClaimIsDefendedOncePerInterval(t *testing.T) {
	netns.Test(t)
	schedule := vip.Schedule
	vip.Schedule = []time.Duration{0, time.Hour} // what is told besides is the defence
	defer func() { vip.Schedule = schedule }()
	sh(t, "ip link add eth0 type veth peer name far; ip link set eth0 up; ip link set far up; ip addr add 192.0.2.1/24 dev eth0")
	h, err := layer2.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	f, err := layer2.NewFence(h)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Stop()
	if err := f.Install(t.Context(), one.Addrs(), time.Minute); err != nil {
		t.Fatal(err)
	}
	if err := f.RenewUntil(one.Addrs(), boottime.Now()+time.Minute); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	say := layer2.NewAnnouncer(h, f, log)
	defer say.Close()
	if err := say.Claim(one); err != nil {
		t.Fatal(err)
	}
	far, err := net.InterfaceByName("far")
	if err != nil {
		t.Fatal(err)
	}
	hand := &clock{}
	var defended atomic.Int32
	c := &conflicts{
		host: h, vips: []vip.VIP{one}, now: hand.now, log: log, since: func(netip.Addr) (time.Duration, bool) { return time.Hour, true },
		defend: func(v vip.VIP) { say.Defend(v); defended.Add(1) },
		seen:   map[string]layer2.Conflict{}, counts: map[netip.Addr]uint64{}, defences: map[netip.Addr]*vip.Defence{},
	}
	ears, err := h.ListenConflicts(one)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	var heard atomic.Int32
	running.Go(func() { _ = ears.Run(ctx, func(got layer2.Conflict) { c.note(got); heard.Add(1) }) })
	n := &neighbour{}
	if n.conn, err = packet.Listen(far, packet.Raw, 0x0806, nil); err != nil {
		t.Fatal(err)
	}
	defer n.frames.Wait()
	defer n.conn.Close()
	n.frames.Go(n.listen)
	mac := byte(0)
	for _, step := range []struct {
		name     string
		at       time.Duration // after the claim
		defended int32         // so far
		count    uint64
	}{
		{"the last holder's word, late", 500 * time.Millisecond, 0, 0},
		{"a foreign host", 2 * time.Second, 1, 1},
		{"again within the interval", 11 * time.Second, 1, 2},
		{"in the next interval", 12 * time.Second, 2, 3},
	} {
		hand.Store(int64(time.Hour + step.at))
		before, said := n.told.Load(), defended.Load()
		mac++ // one that goes on is heard anew only after a while
		n.claims(t, mac)
		eventually(t, step.name+" is heard", func() bool { return heard.Load() == int32(mac) })
		if defended.Load() != step.defended || c.count(one.Addr) != step.count {
			t.Errorf("%s: defended %d times, counted %d, want %d, %d", step.name, defended.Load(), c.count(one.Addr), step.defended, step.count)
		}
		if defended.Load() > said {
			eventually(t, "the segment hears it", func() bool { return n.told.Load() >= before+2 })
		}
	}
	if p := c.problems(); len(p) != 3 {
		t.Errorf("names %d hosts, want the 3 that are foreign: %v", len(p), p)
	}
}
