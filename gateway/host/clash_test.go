package host

import (
	"bytes"
	"log/slog"
	"net"
	"net/netip"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/e2e/netns"
	"github.com/sallyport/sallyport/flows/conntrack"
	"github.com/sallyport/sallyport/tunnel"
	"github.com/sallyport/sallyport/tunnel/vxlan"
)

const testZone = 51

func clashes(t *testing.T) (*Clashes, *bytes.Buffer) {
	t.Helper()
	netns.Test(t)
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, nil))
	cfg := tunnel.DefaultConfig()
	applier, err := vxlan.New(cfg, logger)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { applier.Close() })
	return NewClashes(cfg.Marks, testZone, applier, logger), &log
}

func sh(t *testing.T, script string) {
	t.Helper()
	if out, err := exec.Command("sh", "-ec", script).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", script, err, out)
	}
}

func TestClashesAreNamedLoggedOnceAndGoAway(t *testing.T) {
	c, log := clashes(t)
	c.look(t.Context())
	if got := c.Problems(); len(got) != 0 || log.Len() != 0 {
		t.Fatalf("on a host of our own: %v, %s", got, log)
	}
	sh(t, `nft 'table inet theirs {
		chain c { type filter hook prerouting priority mangle
			meta mark set meta mark | 0x100
		}
		chain z { type filter hook prerouting priority raw
			iif "lo" ct zone set 51
			iif "lo" ct zone set 52
		}
		chain clear { type filter hook prerouting priority mangle
			meta mark set meta mark | 0xffffe0ff
		}
		}'
		ip rule add pref 200 fwmark 0x100/0x100 lookup 4242`)
	want := []string{
		"nftables table inet theirs, chain c: --mark-mask: ",
		"nftables table inet theirs, chain z: --conntrack-zone: ",
		"ip rule 200: fwmark 0x100/0x100 lookup 4242: --mark-mask: ",
	}
	for range 2 { // the second look finds nothing new to log
		c.look(t.Context())
		got := c.Problems()
		if len(got) != len(want) {
			t.Errorf("%d clashes, want %d: %v", len(got), len(want), got)
		}
		for _, w := range want {
			n := 0
			for _, p := range got {
				if strings.HasPrefix(p.String(), w) {
					n++
				}
			}
			if n != 1 {
				t.Errorf("%d clashes begin with %q: %v", n, w, got)
			}
		}
		if n := strings.Count(log.String(), "level=WARN"); n != len(want) {
			t.Errorf("%d warnings, want %d: %s", n, len(want), log)
		}
	}
	sh(t, "nft flush ruleset; ip rule del pref 200")
	c.look(t.Context())
	if got := c.Problems(); len(got) != 0 {
		t.Errorf("named after they are gone: %v", got)
	}
}

func TestConnectionsOfOthersInOurZone(t *testing.T) {
	tuple := func(protocol uint8) conntrack.Tuple {
		return conntrack.Tuple{Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("10.0.0.2"), Protocol: protocol}
	}
	put := func(to conntrack.Tuple, zone uint16, mark uint32) {
		err := conntrack.Insert(conntrack.Entry{Original: to, Reply: to.Inverse(), Zone: zone, Mark: mark, Timeout: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
	}
	insert := func(zone uint16, mark uint32, port uint16) {
		to := tuple(unix.IPPROTO_UDP)
		to.SrcPort, to.DstPort = port, 53
		put(to, zone, mark)
	}
	t.Run("ours", func(t *testing.T) {
		c, _ := clashes(t)
		insert(testZone, c.marks.Value(1)|7<<16, 1)
		insert(testZone+1, 0, 2)
		insert(0, 0, 3)
		ping := tuple(unix.IPPROTO_ICMP) // to the VIP itself
		ping.ICMPType, ping.ICMPID = 8, 1
		put(ping, testZone, 0)
		c.look(t.Context())
		if got := c.Problems(); len(got) != 0 {
			t.Errorf("named in vain: %v", got)
		}
	})
	t.Run("theirs", func(t *testing.T) {
		c, _ := clashes(t)
		insert(testZone, 0, 1)
		insert(testZone, 0x2, 2)
		c.look(t.Context())
		got := c.Problems()
		if len(got) != 1 || got[0].Field != "--conntrack-zone" || !strings.Contains(got[0].Message, "zone 51 had 2 connections") {
			t.Errorf("got %v", got)
		}
	})
}

func TestSocketOnAPort(t *testing.T) {
	const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 0200007F:C350 06 00000000:00000000 03:00000F0A 00000000     0        0 0 3 0000000000000000
   1: 0100007F:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 11 1 0000000000000000 100 0 0 10 0
   2: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000    65        0 12 1 0000000000000000 100 0 0 10 0
`
	if inode, uid, found := socketOn(table, 8080); !found || inode != "12" || uid != "65" {
		t.Errorf("inode %s of user %s, %v", inode, uid, found)
	}
	if inode, _, found := socketOn(table, 808); found {
		t.Errorf("found inode %s", inode)
	}
}

func TestPortTakenNamesTheProcess(t *testing.T) {
	netns.Test(t)
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	port := uint16(tcp.Addr().(*net.TCPAddr).Port)
	_, again := net.Listen("tcp", tcp.Addr().String())
	if got := PortTaken(again, "tcp", port).Error(); !strings.Contains(got, "TCP port "+strconv.Itoa(int(port))+" is in use by this process itself") {
		t.Error(got)
	}
	if got := PortTaken(again, "udp", port).Error(); got != again.Error() {
		t.Errorf("nobody has the UDP port, yet: %v", got)
	}
	if got := PortTaken(syscall.EACCES, "tcp", port).Error(); got != syscall.EACCES.Error() {
		t.Errorf("another error became %v", got)
	}

	// Another process: a shell's own file descriptor, inherited.
	file, err := tcp.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	other := exec.Command("sleep", "600")
	other.ExtraFiles = append(other.ExtraFiles, file)
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = other.Process.Kill()
		_ = other.Wait()
	}()
	file.Close()
	tcp.Close()
	if got := PortTaken(again, "tcp", port).Error(); !strings.Contains(got, "is in use by sleep (process "+strconv.Itoa(other.Process.Pid)+")") {
		t.Error(got)
	}

	sh(t, "ip link add their0 type vxlan id 7 dstport 4793 dev lo; ip link set their0 up")
	if got := PortTaken(syscall.EADDRINUSE, "udp", 4793).Error(); !strings.Contains(got, "UDP port 4793 is in use by a process of user 0 outside of this container, or a tunnel device") {
		t.Error(got)
	}
}
