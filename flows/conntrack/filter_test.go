package conntrack_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/e2e/lab"
	"github.com/sallyport/sallyport/flows"
	"github.com/sallyport/sallyport/flows/conntrack"
)

// ear is a listener in the first gateway, and what it heard so far.
type ear struct {
	*conntrack.Listener
	heard <-chan conntrack.Event
}

func (l *takeoverLab) listen(what conntrack.Interest) (e ear) {
	l.t.Helper()
	l.do(l.a, func() (err error) {
		e.Listener, err = conntrack.Listen(zone, what)
		return err
	})
	l.t.Cleanup(e.Close)
	e.heard = hear(l.t, e.Listener)
	return e
}

// since are the events since the last call, all of them.
func (e ear) since(t *testing.T) (events []string, changes []flows.Change) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := e.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	for {
		select {
		case ev := <-e.heard:
			events = append(events, fmt.Sprintf("%s %d", []string{"", "new", "updated", "destroyed", "lost"}[ev.Kind], ev.Entry.TCPState))
			if c, told := scope.Change(&ev); told {
				changes = append(changes, c)
			}
		default:
			return events, changes
		}
	}
}

// reaches waits for the state of a connection's entry.
func (l *takeoverLab) reaches(pod net.Conn, state uint8) conntrack.Entry {
	l.t.Helper()
	var e conntrack.Entry
	if err := lab.Await(patience, func() error {
		if e = l.entry(l.a, pod); e.TCPState != state {
			return fmt.Errorf("state %d, want %d", e.TCPState, state)
		}
		return nil
	}); err != nil {
		l.t.Fatal(err)
	}
	return e
}

// last is what a standby has in the end.
func last(changes []flows.Change) flows.Op {
	if len(changes) == 0 {
		return flows.Delete
	}
	return changes[len(changes)-1].Op
}

// Of the dozen things that the kernel tells of a connection three are read, and a standby
// knows the same by them.
func TestOnlyWhatChangesAnythingIsHeard(t *testing.T) {
	l := newTakeover(t)
	l.must(l.a, "nft", "add rule ip gateway judged ct mark set 0x500") // by which it is the scope's
	all, few := l.listen(conntrack.Everything), l.listen(conntrack.Changes)
	check := func(what string, want ...string) {
		t.Helper()
		events, changes := few.since(t)
		if !slices.Equal(events, want) {
			t.Errorf("%s: heard %q, want %q", what, events, want)
		}
		more, whole := all.since(t)
		if len(more) < len(events) || last(whole) != last(changes) {
			t.Errorf("%s: of %q a standby has %v, of %q %v", what, more, whole, events, changes)
		}
		t.Logf("%s: %q of %q", what, events, more)
	}
	remove := func(e conntrack.Entry) { l.do(l.a, func() error { return conntrack.Delete(e) }) }

	pod, srv := l.connect(podA, 0)
	check("opened", "updated 3")
	pod.Close()
	l.reaches(pod, 5)
	check("closed by one side", "updated 4")
	srv.Close()
	remove(l.reaches(pod, 7))
	check("closed by both, and forgotten", "updated 7")

	pod, srv = l.connect(podA, 0)
	pod.Close()
	remove(l.reaches(pod, 5))
	check("forgotten while half of it was open", "updated 3", "updated 4", "destroyed 5")
	srv.Close()

	pod, _ = l.connect(podA, 0)
	check("opened again", "updated 3")
	e := l.entry(l.a, pod)
	l.do(l.a, func() error { return conntrack.Update(e) }) // as a takeover does
	check("changed by this program")
	l.do(l.a, func() error { return conntrack.UpdateAsAnother(e) })
	check("changed by another program", "updated 3")
	remove(e)
	check("forgotten while it was open", "destroyed 3")

	pod, _ = l.connect(podA, 0)
	if err := pod.(*net.TCPConn).SetLinger(0); err != nil {
		t.Fatal(err)
	}
	pod.Close()
	remove(l.reaches(pod, 8))
	check("reset, and forgotten", "updated 3", "updated 8")

	l.must(l.server, "nft", "table ip deaf { chain in { type filter hook prerouting priority raw; drop; }; }")
	l.do(l.pod, func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		err = unix.Connect(fd, &unix.SockaddrInet4{Port: port, Addr: netip.MustParseAddr(server).As4()})
		if !errors.Is(err, unix.EINPROGRESS) {
			return fmt.Errorf("connect to the deaf: %w", err)
		}
		return nil
	})
	var asked []conntrack.Entry
	if err := lab.Await(patience, func() error {
		if asked = l.entries(l.a); len(asked) != 1 {
			return fmt.Errorf("%d entries, want that of the one who asked", len(asked))
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	remove(asked[0])
	check("never answered")
}

// A connection whose entry was lost is picked up from the pod's next packet on. No change
// of state tells of it.
func TestWhatIsPickedUpIsTold(t *testing.T) {
	l := newTakeover(t)
	l.must(l.a, "nft", "add rule ip gateway judged ct mark set 0x500")
	l.do(l.a, func() error { return l.a.Sysctls("netfilter/nf_conntrack_tcp_loose=1") })
	pod, srv := l.connect(podA, 0)
	few := l.listen(conntrack.Changes)
	l.do(l.a, func() error { return conntrack.Delete(l.entry(l.a, pod)) })
	if err := errors.Join(say(pod, srv, "still there"), say(srv, pod, "yes")); err != nil {
		t.Fatal(err)
	}
	events, changes := few.since(t)
	if last(changes) != flows.Put {
		t.Errorf("told %+v, want that it is there", changes)
	}
	// The birth of what is picked up has a state that would pass the filter.
	if slices.Contains(events, "new 3") {
		t.Errorf("births are subscribed to: %q", events)
	}
}
