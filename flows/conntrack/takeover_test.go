package conntrack_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/sallyport/sallyport/e2e/lab"
	"github.com/sallyport/sallyport/flows/conntrack"
)

func TestInsertedConnectionGoesOnServerFirst(t *testing.T) {
	l := newTakeover(t)
	pod, srv := l.connect(podA, 0)
	e := l.entry(l.a, pod)
	if e.TCPState != conntrack.TCPEstablished || e.Timeout == 0 {
		t.Errorf("entry %+v, want it established and with a timeout", e)
	}
	e.Mark = 0x50000
	l.insert(l.b, conntrack.Insert, e)
	got := l.entry(l.b, pod)
	if got.Original != e.Original || got.Reply != e.Reply || got.Mark != e.Mark || got.TCPState != e.TCPState ||
		got.Timeout > e.Timeout || got.Status&(conntrack.SeenReply|conntrack.Assured) != conntrack.SeenReply|conntrack.Assured {
		t.Errorf("inserted %+v, read back %+v", e, got)
	}
	l.route(l.b)
	for _, d := range []struct{ from, to net.Conn }{{srv, pod}, {pod, srv}, {srv, pod}} {
		if err := say(d.from, d.to, "after the takeover"); err != nil {
			t.Fatal(err)
		}
	}
	if n := l.invalid(l.b); n != 0 {
		t.Errorf("%d packets were invalid, want none", n)
	}
}

// The hazard: the entry reads right and translates nothing.
func TestTranslatedReplyTupleLeavesUntranslated(t *testing.T) {
	l := newTakeover(t)
	pod, _ := l.connect(podA, 0)
	e := l.entry(l.a, pod)
	l.insert(l.b, conntrack.InsertTranslatedReply, e)
	if got := l.entry(l.b, pod); got.Original != e.Original || got.Reply != e.Reply {
		t.Fatalf("inserted %+v, read back %+v", e, got)
	}
	l.must(l.server, "nft", `table ip seen {
		counter pod { }
		counter vip { }
		chain in { type filter hook prerouting priority raw;
			ip saddr 10.244.1.0/24 counter name pod drop; ip saddr 192.0.2.10 counter name vip; }
	}`)
	l.route(l.b)
	if _, err := io.WriteString(pod, "untranslated"); err != nil {
		t.Fatal(err)
	}
	if err := lab.Await(patience, func() error {
		out := l.must(l.server, "nft", "list", "counter", "ip", "seen", "pod")
		if bytes.Contains([]byte(out), []byte("packets 0 ")) {
			return errors.New("no packet with the pod's address arrives")
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if out := l.must(l.server, "nft", "list", "counter", "ip", "seen", "vip"); !bytes.Contains([]byte(out), []byte("packets 0 ")) {
		t.Errorf("packets arrive with the VIP: %s", out)
	}
}

// bulk sends a megabyte, many packets at a time, towards the pod. A window scale that
// the gateway does not know is what makes it guess the window too small.
func bulk(from, to net.Conn) error {
	sent := make(chan error, 1)
	go func() {
		_ = from.SetWriteDeadline(time.Now().Add(patience))
		_, err := from.Write(make([]byte, 1<<20))
		sent <- err
	}()
	_ = to.SetReadDeadline(time.Now().Add(patience))
	_, err := io.CopyN(io.Discard, to, 1<<20)
	if err != nil {
		_ = from.Close()
	}
	return errors.Join(err, <-sent)
}

func TestInsertedConnectionIsLiberalAboutWindows(t *testing.T) {
	for _, c := range []struct {
		name    string
		create  func(conntrack.Entry) error
		invalid bool
	}{{"liberal", conntrack.Insert, false}, {"strict", conntrack.InsertStrict, true}} {
		t.Run(c.name, func(t *testing.T) {
			l := newTakeover(t)
			l.run(l.server, "ip link set tob gso_max_segs 1") // conntrack judges each segment
			pod, srv := l.connect(podA, 0)
			l.insert(l.b, c.create, l.entry(l.a, pod))
			l.route(l.b)
			err := bulk(srv, pod)
			n := l.invalid(l.b)
			t.Logf("%d packets were invalid, transfer: %v", n, err)
			if (n > 0) != c.invalid || (!c.invalid && err != nil) {
				t.Errorf("%d packets were invalid, transfer %v; want invalid ones: %t", n, err, c.invalid)
			}
		})
	}
}

func TestClashedSourcePortSurvives(t *testing.T) {
	l := newTakeover(t)
	pod1, srv1 := l.connect(podA, 40000)
	pod2, srv2 := l.connect(podB, 40000)
	e1, e2 := l.entry(l.a, pod1), l.entry(l.a, pod2)
	if e1.Reply.DstPort == e2.Reply.DstPort {
		t.Fatalf("both have source port %d: no clash to test", e1.Reply.DstPort)
	}
	l.insert(l.b, conntrack.Insert, e2, e1) // not the order in which they were born
	l.route(l.b)
	for _, c := range []struct{ pod, srv net.Conn }{{pod1, srv1}, {pod2, srv2}} {
		word := fmt.Sprint(c.pod.LocalAddr())
		if err := errors.Join(say(c.srv, c.pod, word), say(c.pod, c.srv, word)); err != nil {
			t.Errorf("connection of %s: %v", word, err)
		}
	}
}

func TestStandbysTimeoutIsLongUntilTakeover(t *testing.T) {
	const long, normal = 24 * time.Hour, 10 * time.Minute
	l := newTakeover(t)
	pod1, _ := l.connect(podA, 0)
	pod2, srv2 := l.connect(podB, 0)
	short, lasting := l.entry(l.a, pod1), l.entry(l.a, pod2)
	short.Timeout, lasting.Timeout = time.Second, long
	l.insert(l.b, conntrack.Insert, lasting, short)
	if err := lab.Await(patience, func() error {
		if n := len(l.entries(l.b)); n != 1 {
			return fmt.Errorf("%d entries on the standby, want the short one gone and the long one there", n)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	l.entry(l.a, pod1) // it lives on where its packets are
	if got := l.entry(l.b, pod2); got.Timeout <= normal {
		t.Errorf("the standby's entry has a timeout of %s, want nearly %s", got.Timeout, long)
	}
	l.route(l.b)
	l.do(l.b, func() error {
		return conntrack.Update(conntrack.Entry{Original: lasting.Original, Zone: zone, Timeout: normal})
	})
	if got := l.entry(l.b, pod2); got.Timeout > normal || got.TCPState != lasting.TCPState || got.Reply != lasting.Reply {
		t.Errorf("after the takeover the entry is %+v, want %s and all else as it was", got, normal)
	}
	if err := say(srv2, pod2, "after the takeover"); err != nil {
		t.Fatal(err)
	}
}

func TestInsertedUDPGoesOnServerFirst(t *testing.T) {
	l := newTakeover(t)
	var srv *net.UDPConn
	var pod net.Conn
	l.do(l.server, func() (err error) {
		srv, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(server), Port: port})
		return err
	})
	defer srv.Close()
	l.do(l.pod, func() (err error) {
		d := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(podA)}}
		pod, err = d.Dial("udp4", srv.LocalAddr().String())
		return err
	})
	defer pod.Close()
	if _, err := io.WriteString(pod, "hello"); err != nil {
		t.Fatal(err)
	}
	_ = srv.SetReadDeadline(time.Now().Add(patience))
	_, seen, err := srv.ReadFromUDPAddrPort(make([]byte, 8))
	if err != nil || seen.Addr() != vip {
		t.Fatalf("the server sees %s, %v; want the VIP %s", seen, err, vip)
	}
	push := func(word string) {
		t.Helper()
		if _, err := srv.WriteToUDPAddrPort([]byte(word), seen); err != nil {
			t.Fatal(err)
		}
		_ = pod.SetReadDeadline(time.Now().Add(patience))
		buf := make([]byte, 32)
		if n, err := pod.Read(buf); err != nil || string(buf[:n]) != word {
			t.Fatalf("%q arrives in the pod, %v; want %q", buf[:n], err, word)
		}
	}
	push("before")
	l.insert(l.b, conntrack.Insert, l.entry(l.a, pod))
	l.route(l.b)
	push("after the takeover")
}

func TestInsertedPingGoesOn(t *testing.T) {
	l := newTakeover(t)
	l.must(l.pod, "ping", "-c1", "-W5", "-I", podA, "-e", "4711", server)
	l.must(l.pod, "ping", "-c1", "-W5", "-I", podB, "-e", "4711", server) // clashes: another id
	entries := l.entries(l.a)
	if len(entries) != 2 || entries[0].Reply.ICMPID == entries[1].Reply.ICMPID {
		t.Fatalf("entries %+v, want two with different ids", entries)
	}
	l.insert(l.b, conntrack.Insert, entries...)
	inserted := map[conntrack.Tuple]conntrack.Tuple{}
	for _, e := range l.entries(l.b) {
		inserted[e.Original] = e.Reply
	}
	for _, e := range entries {
		if inserted[e.Original] != e.Reply {
			t.Errorf("entry %s has reply %s on the standby, want %s", e.Original, inserted[e.Original], e.Reply)
		}
	}
	l.route(l.b)
	l.must(l.pod, "ping", "-c1", "-W5", "-I", podA, "-e", "4711", server)
	if n := len(l.entries(l.b)); n != 2 {
		t.Errorf("%d entries after another ping, want the same 2", n)
	}
}
