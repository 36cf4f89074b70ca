package conntrack_test

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/sallyport/sallyport/e2e/lab"
	"github.com/sallyport/sallyport/flows/conntrack"
)

// listen starts a listener in the test's namespace.
func listen(t *testing.T) *conntrack.Listener {
	t.Helper()
	l, err := conntrack.Listen(zone, conntrack.Everything)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

// hear runs the listener until the test ends; the channel has room for all.
func hear(t *testing.T, l *conntrack.Listener) <-chan conntrack.Event {
	ctx, cancel := context.WithCancel(t.Context())
	events, done := make(chan conntrack.Event, 1<<14), make(chan error, 1)
	go func() {
		done <- l.Run(ctx, func(batch []conntrack.Event) {
			for _, e := range batch {
				events <- e
			}
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return events
}

func next(t *testing.T, events <-chan conntrack.Event) conntrack.Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	select {
	case e := <-events:
		return e
	case <-ctx.Done():
		t.Fatal("no event comes")
		return conntrack.Event{}
	}
}

// expect waits for an event and passes over those of other kinds.
func expect(t *testing.T, events <-chan conntrack.Event, kind conntrack.EventKind) conntrack.Event {
	t.Helper()
	for {
		if e := next(t, events); e.Kind == kind {
			return e
		}
	}
}

func port4(c *net.UDPConn) string { return fmt.Sprint(c.LocalAddr().(*net.UDPAddr).Port) }

func TestListenerHearsOneZone(t *testing.T) {
	track(t)
	l := listen(t)
	send(t, 9000) // zone 0
	send(t, 9002)
	heard := hear(t, l) // what happened before waits in the socket
	born := expect(t, heard, conntrack.New)
	if born.Entry.Original.DstPort != 9002 || born.Entry.Zone != zone || born.Entry.Timeout == 0 {
		t.Errorf("the first event is of %+v, want the flow to 9002", born.Entry)
	}
	if err := conntrack.Update(conntrack.Entry{Original: born.Entry.Original, Zone: zone, Mark: 5}); err != nil {
		t.Fatal(err)
	}
	if e := expect(t, heard, conntrack.Updated); e.Entry.Mark != 5 || e.Entry.Original != born.Entry.Original {
		t.Errorf("updated is %+v, want mark 5", e.Entry)
	}
	if err := conntrack.Delete(born.Entry); err != nil {
		t.Fatal(err)
	}
	if e := expect(t, heard, conntrack.Destroyed); e.Entry.Original != born.Entry.Original {
		t.Errorf("destroyed is %+v, want the flow to 9002", e.Entry)
	}
}

func TestListenerReportsLostEvents(t *testing.T) {
	track(t)
	l := listen(t)
	if err := l.ShrinkBuffer(); err != nil {
		t.Fatal(err)
	}
	const flows = 200
	for range flows {
		send(t, 9002)
	}
	heard := hear(t, l)
	expect(t, heard, conntrack.Lost)
	if n := count(t, conntrack.Mark{}, to(9002)); n != flows {
		t.Errorf("a dump after the loss finds %d flows, want %d", n, flows)
	}
	// It goes on. Events may be lost again until the buffer is read empty.
	later := map[string]bool{}
	if err := lab.Await(patience, func() error {
		later[port4(send(t, 9002))] = true
		for {
			select {
			case e := <-heard:
				if e.Kind == conntrack.New && later[fmt.Sprint(e.Entry.Original.SrcPort)] {
					return nil
				}
			default:
				return fmt.Errorf("none of %d later flows is heard of", len(later))
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
}

// In auto mode only entries born after the first listener have events, so what was
// there before is found by the dump that follows Listen, or never.
func TestEntriesBornBeforeTheListenerAreDumped(t *testing.T) {
	track(t)
	must(t, "sysctl", "-qw", "net.netfilter.nf_conntrack_events=2")
	before := send(t, 9002)
	l := listen(t)
	old, err := conntrack.Dump(conntrack.IPv4, conntrack.Mark{}, to(9002))
	if err != nil || len(old) != 1 || fmt.Sprint(old[0].Original.SrcPort) != port4(before) {
		t.Fatalf("dump: %+v, %v; want the flow from %s", old, err, port4(before))
	}
	heard := hear(t, l)
	if err := conntrack.Delete(old[0]); err != nil {
		t.Fatal(err)
	}
	// Events are in order: with the later flow's, the earlier one's would be here.
	after := send(t, 9002)
	e := next(t, heard)
	if e.Kind == conntrack.Destroyed && e.Entry.Original == old[0].Original {
		t.Skip("a listener in another network namespace has given the earlier flow events: the kernel has one nf_ctnetlink_has_listener for all")
	}
	if e.Kind != conntrack.New || fmt.Sprint(e.Entry.Original.SrcPort) != port4(after) {
		t.Errorf("the first event is %+v, want the birth of the flow from %s", e, port4(after))
	}
}

// A reader that the kernel woke for each event would take the processor from the packets
// that cause them. Between two readings is a pause, however slow the machine.
func TestEventsOfManyConnectionsAreReadTogether(t *testing.T) {
	track(t)
	l := listen(t)
	ctx, cancel := context.WithCancel(t.Context())
	readings, heard, done := 0, 0, make(chan error, 1)
	const flows = 500
	go func() {
		done <- l.Run(ctx, func(batch []conntrack.Event) {
			readings++
			for _, e := range batch {
				if e.Kind == conntrack.New {
					heard++
				}
			}
			if heard == flows {
				cancel()
			}
		})
	}()
	began := time.Now()
	for range flows {
		send(t, 9002)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); readings > int(took/conntrack.Together)+2 {
		t.Errorf("%d flows in %v took %d readings", flows, took, readings)
	}
}

func TestListenerEndsWhileItWaits(t *testing.T) {
	track(t)
	l := listen(t)
	ctx, cancel := context.WithCancel(t.Context())
	done, quiet := make(chan error, 1), make(chan struct{}, 1<<10)
	go func() { done <- l.Run(ctx, func([]conntrack.Event) { quiet <- struct{}{} }) }()
	send(t, 9002)
	<-quiet // from here on it waits, for more or for others
	cancel()
	late, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-late.Done():
		t.Fatal("it still runs")
	}
}
