package conntrack_test

import (
	"net"
	"net/netip"
	"os/exec"
	"testing"

	"github.com/sallyport/sallyport/e2e/netns"
	"github.com/sallyport/sallyport/flows/conntrack"
)

func must(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
}

// track makes the namespace track connections, mark those to port 9001 and put
// those to port 9002 in a zone.
func track(t *testing.T) {
	netns.Test(t)
	must(t, "nft", `table ip t {
		chain zones { type filter hook output priority raw; udp dport 9002 ct zone set 7; }
		chain marks { type filter hook output priority mangle; udp dport 9001 ct mark set 0x105; }
		chain pre { type filter hook prerouting priority mangle; ct state new,established; }
	}`)
}

func send(t *testing.T, port int) *net.UDPConn {
	t.Helper()
	c, err := net.DialUDP("udp4", nil, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	return c
}

func all(*conntrack.Entry) bool { return true }

func to(port uint16) func(*conntrack.Entry) bool {
	return func(e *conntrack.Entry) bool { return e.Original.DstPort == port }
}

func count(t *testing.T, mark conntrack.Mark, keep func(*conntrack.Entry) bool) int {
	t.Helper()
	entries, err := conntrack.Dump(conntrack.IPv4, mark, keep)
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestDumpReadsWhatTheKernelTracks(t *testing.T) {
	track(t)
	server, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9000})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	c := send(t, 9000)
	buf := make([]byte, 1)
	_, peer, err := server.ReadFrom(buf)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := server.WriteTo(buf, peer); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(buf); err != nil {
		t.Fatal(err)
	}
	send(t, 9001)
	send(t, 9002)

	entries, err := conntrack.Dump(conntrack.IPv4, conntrack.Mark{}, to(9000))
	if err != nil || len(entries) != 1 {
		t.Fatalf("entries to 9000: %v, %v; want one", entries, err)
	}
	e, local := entries[0], netip.MustParseAddr("127.0.0.1")
	port := uint16(c.LocalAddr().(*net.UDPAddr).Port)
	if want := (conntrack.Tuple{Src: local, Dst: local, Protocol: 17, SrcPort: port, DstPort: 9000}); e.Original != want {
		t.Errorf("original %+v, want %+v", e.Original, want)
	}
	if want := (conntrack.Tuple{Src: local, Dst: local, Protocol: 17, SrcPort: 9000, DstPort: port}); e.Reply != want {
		t.Errorf("reply %+v, want %+v", e.Reply, want)
	}
	if e.Status&conntrack.SeenReply == 0 {
		t.Errorf("status %#x of an answered flow lacks SEEN_REPLY", e.Status)
	}
	unanswered, err := conntrack.Dump(conntrack.IPv4, conntrack.Mark{}, to(9002))
	if err != nil || len(unanswered) != 1 || unanswered[0].Status&conntrack.SeenReply != 0 || unanswered[0].Zone != 7 {
		t.Errorf("flow to 9002: %+v, %v; want one, unanswered, in zone 7", unanswered, err)
	}
	if n := count(t, conntrack.Mark{Value: 0x100, Mask: 0xf00}, all); n != 1 {
		t.Errorf("%d entries with mark 0x100/0xf00, want 1", n)
	}
	if n := count(t, conntrack.Mark{Mask: 0xf00}, all); n != 2 {
		t.Errorf("%d entries with mark 0/0xf00, want 2", n)
	}
}

func TestForgetRemovesThoseAndNoOthers(t *testing.T) {
	track(t)
	for _, port := range []int{9000, 9001, 9002} {
		send(t, port)
	}
	for _, port := range []uint16{9001, 9002} {
		n, err := conntrack.Forget(conntrack.IPv4, conntrack.Mark{}, to(port))
		if err != nil || n != 1 {
			t.Fatalf("forget flows to %d: %d, %v; want 1", port, n, err)
		}
	}
	if n := count(t, conntrack.Mark{}, all); n != 1 {
		t.Errorf("%d entries left, want the one to port 9000", n)
	}
}

func TestForgetRemovesWhatHasNoPorts(t *testing.T) {
	track(t)
	must(t, "ping", "-c1", "-W5", "127.0.0.1")
	esp, err := net.Dial("ip4:50", "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	defer esp.Close()
	if _, err := esp.Write(make([]byte, 8)); err != nil {
		t.Fatal(err)
	}
	for name, protocol := range map[string]uint8{"ICMP": 1, "ESP": 50} {
		n, err := conntrack.Forget(conntrack.IPv4, conntrack.Mark{}, func(e *conntrack.Entry) bool { return e.Original.Protocol == protocol })
		if err != nil || n == 0 {
			t.Errorf("forget %s: %d, %v; want one", name, n, err)
		}
	}
	if n := count(t, conntrack.Mark{}, func(e *conntrack.Entry) bool { return e.Original.SrcPort == 0 }); n != 0 {
		t.Errorf("%d entries left, want none", n)
	}
}

func TestDeleteOfAGoneEntryIsNoError(t *testing.T) {
	track(t)
	send(t, 9000)
	entries, err := conntrack.Dump(conntrack.IPv4, conntrack.Mark{}, all)
	if err != nil || len(entries) != 1 {
		t.Fatalf("%v, %v", entries, err)
	}
	for range 2 {
		if err := conntrack.Delete(entries[0]); err != nil {
			t.Fatal(err)
		}
	}
}

// While it is read, packets are held up on a processor: on no more than one by us.
func TestTableIsReadByOneAtATime(t *testing.T) {
	track(t)
	send(t, 9001)
	n := count(t, conntrack.Mark{}, func(*conntrack.Entry) bool {
		if !conntrack.Reading() {
			t.Error("another might read now")
		}
		return true
	})
	if n == 0 || conntrack.Reading() {
		t.Errorf("read %d entries, and still reading: %v", n, conntrack.Reading())
	}
}
