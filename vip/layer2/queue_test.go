package layer2

import (
	"encoding/binary"
	"log/slog"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	ns "github.com/sallyport/sallyport/e2e/netns"
	"github.com/sallyport/sallyport/vip"
)

// wire is an interface whose frames the test takes and gives: no queue on the way but
// its own, which has room for all.
func wire(t *testing.T, n *ns.NS) *os.File {
	t.Helper()
	var fd int
	must(t, n.Do(func() (err error) {
		if fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0); err != nil {
			return err
		}
		req, err := unix.NewIfreq("eth0")
		if err != nil {
			return err
		}
		req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
		return unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}))
	f := os.NewFile(uintptr(fd), "tap")
	t.Cleanup(func() { _ = f.Close() })
	sh(t, n, "sysctl -qw net.ipv6.conf.eth0.disable_ipv6=1; ip link set lo up; ip link set eth0 txqueuelen 5000 up; ip addr add 192.0.2.1/24 dev eth0")
	return f
}

// All that comes while nobody has the VIP waits and leaves for the one who has it then,
// more than the kernel's own setting has room for; and that is as before afterwards.
func TestManyPacketsWaitForTheHeir(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root for network namespaces")
	}
	const many = 2000
	n := namespace(t, "queue")
	w := wire(t, n)
	before := host(t, n)
	sh(t, n, "ip ntable change name arp_cache dev eth0 queue 150")
	was := queue(t, before)
	r, err := NewRelay(before.Host, []vip.VIP{v}, 4793, slog.New(slog.DiscardHandler))
	must(t, err)
	t.Cleanup(func() { _ = r.Stop() })
	must(t, r.Up(t.Context(), nil))
	must(t, r.Up(t.Context(), nil)) // of another VIP, meanwhile
	own, err := net.ParseMAC(before.mac)
	must(t, err)
	partner, heir := net.HardwareAddr{2, 0, 0, 0, 0, 9}, net.HardwareAddr{2, 0, 0, 0, 0, 2}
	for i := range many {
		_, err := w.Write(datagram(partner, own, uint32(i)))
		must(t, err)
	}
	eventually(t, "all wait", func() bool {
		n, err := r.Passed()
		must(t, err)
		return n == many
	})
	_, err = w.Write(arpFrame(arpReply, heir, addr, broadcast, addr))
	must(t, err)
	came, buf := 0, make([]byte, 2048)
	for came < many {
		must(t, w.SetReadDeadline(time.Now().Add(10*time.Second)))
		k, err := w.Read(buf)
		if err != nil {
			t.Fatalf("%d of %d came: %v", came, many, err)
		}
		if k < headers || binary.BigEndian.Uint16(buf[12:]) != unix.ETH_P_IP {
			continue
		}
		if got := net.HardwareAddr(buf[:6]); got.String() != heir.String() {
			t.Fatalf("datagram %d goes to %v", came, got)
		}
		if got := binary.BigEndian.Uint32(buf[headers:]); int(got) != came {
			t.Fatalf("datagram %d came where %d was due", got, came)
		}
		came++
	}
	must(t, r.Down())
	if queue(t, before) == was {
		t.Error("the room is gone while another VIP needs it")
	}
	must(t, r.Down())
	if now := queue(t, before); now != was {
		t.Errorf("room for %s bytes is left, it was %s", now, was)
	}
}

// A process that was killed amid a hand-over leaves the relay and the room; what comes
// after it, the next start or a clean-up, has only the kernel to tell what was before.
func TestRoomOfADeadProcessIsGivenBack(t *testing.T) {
	s := segment(t, "a")["a"]
	sh(t, s.ns, "ip ntable change name arp_cache dev eth0 queue 150")
	was := queue(t, s)
	for name, clean := range map[string]func(*Relay) error{
		"next start": (*Relay).Remove,
		"clean-up":   func(*Relay) error { return s.Cleanup(only) },
	} {
		dead, err := NewRelay(s.Host, []vip.VIP{v}, 4793, slog.New(slog.DiscardHandler))
		must(t, err)
		must(t, dead.Up(t.Context(), nil))
		must(t, dead.Stop())
		if queue(t, s) == was {
			t.Fatal("nothing was changed")
		}
		next, err := NewRelay(s.Host, []vip.VIP{v}, 4793, slog.New(slog.DiscardHandler))
		must(t, err)
		must(t, clean(next))
		must(t, next.Stop())
		if now := queue(t, s); now != was {
			t.Errorf("%s: room for %s bytes is left, it was %s", name, now, was)
		}
	}
}

// queue is the kernel's own word for the room.
func queue(t *testing.T, s *station) string {
	t.Helper()
	return strings.TrimSpace(sh(t, s.ns, "cat /proc/sys/net/ipv4/neigh/eth0/unres_qlen_bytes"))
}

const headers = 14 + 20 + 8 // Ethernet, IPv4, UDP

// datagram to the VIP, by UDP without a checksum, which IPv4 allows.
func datagram(from, to net.HardwareAddr, n uint32) []byte {
	b := make([]byte, headers, headers+4)
	copy(b, to)
	copy(b[6:], from)
	binary.BigEndian.PutUint16(b[12:], unix.ETH_P_IP)
	ip, udp := b[14:34], b[34:]
	ip[0], ip[8], ip[9] = 0x45, 64, unix.IPPROTO_UDP
	binary.BigEndian.PutUint16(ip[2:], 20+8+4)
	copy(ip[12:], []byte{192, 0, 2, 9})
	copy(ip[16:], addr.AsSlice())
	sum := uint32(0)
	for i := 0; i < len(ip); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(ip[i:]))
	}
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum+sum>>16))
	binary.BigEndian.PutUint16(udp, 7)
	binary.BigEndian.PutUint16(udp[2:], 40000)
	binary.BigEndian.PutUint16(udp[4:], 8+4)
	return binary.BigEndian.AppendUint32(b, n)
}
