package conntrack_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/flows"
	"github.com/sallyport/sallyport/flows/conntrack"
)

var scope = conntrack.Scope{VIP: vip, Zone: zone, Mark: conntrack.Mark{Value: 0x500, Mask: 0x1f00}}

func writer(t *testing.T) *conntrack.Writer {
	t.Helper()
	w, err := conntrack.NewWriter()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

// tcpFlow is the nth connection, seen by the partner with its own port.
func tcpFlow(n int) flows.Flow {
	return flows.Flow{Key: flows.Key{
		Src: netip.AddrFrom4([4]byte{10, 244, byte(1 + n>>8), byte(n)}), Dst: netip.MustParseAddr("203.0.113.5"),
		SrcPort: 5000, DstPort: 443, Protocol: unix.IPPROTO_TCP,
	}, Port: uint16(10000 + n), State: conntrack.TCPEstablished, Status: uint8(conntrack.SeenReply | conntrack.Assured), Mark: 0x510500}
}

func hour(conntrack.Entry) time.Duration { return time.Hour }

func apply(t *testing.T, w *conntrack.Writer, changes ...flows.Change) {
	t.Helper()
	if err := scope.Apply(w, changes, hour); err != nil {
		t.Fatal(err)
	}
}

// table is what the kernel has of the scope.
func table(t *testing.T) map[flows.Key]flows.Flow {
	t.Helper()
	all, err := scope.Flows()
	if err != nil {
		t.Fatal(err)
	}
	byKey := map[flows.Key]flows.Flow{}
	for _, f := range all {
		byKey[f.Key] = f
	}
	return byKey
}

// Hundreds at a time, of which some are there already and one is a rival's.
func TestWriterPutsWhatIsThereAndWhatIsNot(t *testing.T) {
	track(t)
	w := writer(t)
	const n = 700
	var changes []flows.Change
	for i := range n {
		changes = append(changes, flows.Change{Op: flows.Put, Flow: tcpFlow(i)})
	}
	rival := tcpFlow(n)
	rival.Port = tcpFlow(3).Port // of a connection that ended, as the holder knows
	apply(t, w, flows.Change{Op: flows.Put, Flow: rival}, changes[0], changes[500])
	changes[500].Flow.State = 4 // FIN_WAIT
	apply(t, w, changes...)
	got := table(t)
	for _, c := range changes {
		if got[c.Flow.Key] != c.Flow {
			t.Errorf("put %+v, there is %+v", c.Flow, got[c.Flow.Key])
		}
	}
	if _, there := got[rival.Key]; there || len(got) != n {
		t.Errorf("%d connections, the rival among them: %t; want %d without it", len(got), there, n)
	}

	moved := tcpFlow(7)
	moved.Port = 60000
	apply(t, w, flows.Change{Op: flows.Replace, Flow: moved}, flows.Change{Op: flows.Delete, Flow: tcpFlow(8)}, flows.Change{Op: flows.Delete, Flow: tcpFlow(n + 5)})
	if got = table(t); got[moved.Key] != moved || len(got) != n-1 {
		t.Errorf("replaced by %+v, there is %+v, %d connections in all", moved, got[moved.Key], len(got))
	}
}

// One that the kernel does not take costs the others nothing.
func TestWriterGoesOnAfterARefusal(t *testing.T) {
	track(t)
	w := writer(t)
	bad := scope.Entry(tcpFlow(1)) // no timeout
	good := scope.Entry(tcpFlow(2))
	good.Timeout = time.Hour
	worse := scope.Entry(tcpFlow(3))
	worse.Timeout, worse.TCPState = time.Hour, 99
	last := scope.Entry(tcpFlow(4))
	last.Timeout = time.Hour
	err := w.Put([]conntrack.Entry{bad, good, worse, last})
	if err == nil || !strings.Contains(err.Error(), "timeout") || !strings.Contains(err.Error(), "out of range") {
		t.Errorf("refused: %v", err)
	}
	if got := table(t); len(got) != 2 {
		t.Errorf("%d connections, want the two that are right", len(got))
	}
	w.Close()
	if err := w.Put([]conntrack.Entry{good}); err == nil {
		t.Error("a closed writer says nothing")
	}
}

// What is not the VIP's, or not of its zone, or not marked as its own, is not told,
// not compared and not restored.
func TestScopeIsOfOneVIP(t *testing.T) {
	track(t)
	w := writer(t)
	apply(t, w, flows.Change{Op: flows.Put, Flow: tcpFlow(1)})
	others := []conntrack.Scope{scope, scope, scope}
	others[0].Zone++
	others[1].VIP = netip.MustParseAddr("192.0.2.11")
	others[2].Mark.Value = 0x600
	for i, s := range others {
		f := tcpFlow(10 + i)
		if err := s.Apply(w, []flows.Change{{Op: flows.Put, Flow: f}}, hour); err != nil {
			t.Fatal(err)
		}
	}
	icmp := tcpFlow(2)
	icmp.Protocol, icmp.State, icmp.SrcPort, icmp.DstPort, icmp.Port = unix.IPPROTO_ICMP, 0, 4711, 8<<8, 4712
	udp := tcpFlow(3)
	udp.Protocol, udp.State = unix.IPPROTO_UDP, 0
	apply(t, w, flows.Change{Op: flows.Put, Flow: icmp}, flows.Change{Op: flows.Put, Flow: udp})
	syn, asked := tcpFlow(4), udp
	syn.State, syn.Status = 1, 0
	asked.SrcPort, asked.Port, asked.Status = 6000, 6000, 0
	apply(t, w, flows.Change{Op: flows.Put, Flow: syn}, flows.Change{Op: flows.Put, Flow: asked})

	got := table(t)
	if len(got) != 3 || got[icmp.Key] != icmp || got[udp.Key] != udp || got[tcpFlow(1).Key] != tcpFlow(1) {
		t.Errorf("told of %+v, want the connections of TCP, UDP and ICMP that were answered", got)
	}
	if all, err := scope.Table(); err != nil || len(all) != 5 {
		t.Errorf("compared are %+v, %v; want those not answered, too", all, err)
	}
	timeouts, err := conntrack.ReadTimeouts()
	if err != nil {
		t.Fatal(err)
	}
	n, err := scope.Restore(w, timeouts)
	if err != nil || n != 4 {
		t.Errorf("restored %d, %v; want the 4 that are not established and liberal already", n, err)
	}
	entries, err := conntrack.Dump(conntrack.IPv4, conntrack.Mark{}, all)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		normal := timeouts.Normal(e)
		if ours := scope.Has(&e); ours && e.Timeout > normal {
			t.Errorf("%s has %s left after it was restored, want %s at most", e.Original, e.Timeout, normal)
		} else if !ours && e.Timeout < 50*time.Minute {
			t.Errorf("%s is not the VIP's and has %s left", e.Original, e.Timeout)
		}
	}
}

func TestChangesFollowTheLifeOfAConnection(t *testing.T) {
	at := func(kind conntrack.EventKind, state uint8, status uint32) conntrack.Event {
		e := scope.Entry(tcpFlow(1))
		e.TCPState, e.Status = state, status
		return conntrack.Event{Kind: kind, Entry: e}
	}
	unanswered := at(conntrack.New, 3, 0)
	if _, told := scope.Flow(&unanswered.Entry); told {
		t.Error("what was picked up and not answered is in a snapshot: nobody would hear of its end")
	}
	foreign := at(conntrack.Updated, 3, conntrack.SeenReply)
	foreign.Entry.Mark = 0x600
	asked := at(conntrack.Updated, 3, conntrack.SeenReply)
	asked.Asked = true
	for _, c := range []struct {
		name string
		ev   conntrack.Event
		op   flows.Op // 0: nothing is told
	}{
		{"changed by this program", asked, 0},
		{"picked up, and born so", at(conntrack.New, 3, 0), 0},
		{"SYN", at(conntrack.New, 1, 0), 0},
		{"SYN, ACK", at(conntrack.Updated, 2, conntrack.SeenReply), 0},
		{"established", at(conntrack.Updated, 3, conntrack.SeenReply|conntrack.Assured), flows.Put},
		{"picked up, and answered", at(conntrack.Updated, 0, conntrack.SeenReply), flows.Put},
		{"picked up, and not", at(conntrack.Updated, 0, 0), 0},
		{"another VIP's mark", foreign, 0},
		{"FIN", at(conntrack.Updated, 4, conntrack.SeenReply|conntrack.Assured), flows.Put},
		{"what follows it", at(conntrack.Updated, 5, conntrack.SeenReply|conntrack.Assured), 0},
		{"the second FIN", at(conntrack.Updated, 6, conntrack.SeenReply|conntrack.Assured), 0},
		{"TIME_WAIT", at(conntrack.Updated, 7, conntrack.SeenReply|conntrack.Assured), flows.Delete},
		{"reset", at(conntrack.Updated, 8, conntrack.SeenReply), flows.Delete},
		{"its end", at(conntrack.Destroyed, 0, conntrack.SeenReply|conntrack.Assured), flows.Delete},
		{"its end while half open", at(conntrack.Destroyed, 5, conntrack.SeenReply|conntrack.Assured), flows.Delete},
		{"its end after its close", at(conntrack.Destroyed, 7, conntrack.SeenReply|conntrack.Assured), 0},
		{"its end after a reset", at(conntrack.Destroyed, 8, conntrack.SeenReply), 0},
		{"the end of one never answered", at(conntrack.Destroyed, 0, 0), 0},
	} {
		got, told := scope.Change(&c.ev)
		if told != (c.op != 0) || told && got.Op != c.op {
			t.Errorf("%s: told %t %d, want %d", c.name, told, got.Op, c.op)
		}
	}
}

// A connection whose windows were followed here long ago would be judged by them.
func TestRestoreMakesLiberal(t *testing.T) {
	l := newTakeover(t)
	l.run(l.server, "ip link set toa gso_max_segs 1")
	l.must(l.a, "nft", "add rule ip gateway judged ct mark set 0x500") // by which it is the scope's
	pod, srv := l.connect(podA, 0)
	// The connection goes on elsewhere for a while.
	l.insert(l.b, conntrack.Insert, l.entry(l.a, pod))
	l.route(l.b)
	for range 3 {
		if err := bulk(srv, pod); err != nil {
			t.Fatal(err)
		}
	}
	l.do(l.a, func() error {
		w, err := conntrack.NewWriter()
		if err != nil {
			return err
		}
		defer w.Close()
		timeouts, err := conntrack.ReadTimeouts()
		if err != nil {
			return err
		}
		_, err = scope.Restore(w, timeouts)
		return err
	})
	l.route(l.a)
	if err := bulk(srv, pod); err != nil {
		t.Error(err)
	}
	if n := l.invalid(l.a); n != 0 {
		t.Errorf("%d packets were invalid after the VIP had come back", n)
	}
}
