package conntrack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// EventKind says what happened to an entry.
type EventKind uint8

// The kinds of event.
const (
	New EventKind = iota + 1
	Updated
	Destroyed
	// Lost is no entry's: the kernel had more to tell than the listener had read, and
	// dropped the rest. What the listener knows is to be compared with a new Dump.
	Lost
)

// Event is one change of the table. An entry that was updated or destroyed has its
// tuples, zone, status and mark; timeout and TCP state are zero when the kernel
// does not tell them.
type Event struct {
	Kind  EventKind
	Asked bool // this process asked for it
	Entry Entry
}

// Listener receives the events of one zone, as far as they are of Interest. To miss nothing, Listen first, then Dump,
// then Run: what happens meanwhile waits in the socket. Repeating it over the dump
// ends in the truth, because the events of an entry are in order.
//
// With net.netfilter.nf_conntrack_events=2, the kernel's default, an entry born before
// the first listener has no events, not even of its end (nf_conntrack_ecache.c): keep
// a listener open always, and compare dumps as long as older entries live.
//
// The runtime's poller must not know of the socket: the kernel would wake it at every
// event, on the processor that forwards the packet, whether anybody reads or not.
type Listener struct {
	fd    int
	ended *os.File // becomes readable when Run is to end
	end   int      // its descriptor
	asked *os.File // becomes readable when somebody waits for Flush
	ask   int      // its descriptor
	flush chan chan struct{}
	once  sync.Once
	inbox *inbox
	batch []Event
}

const (
	// receiveBuffer is room for the events of about a second of ten thousand new
	// connections, while the listener waits for a processor. Memory it takes only then.
	receiveBuffer = 32 << 20

	// together is for how many milliseconds events gather while nobody waits for them.
	// One that comes alone is read at once.
	together = 4
	never    = -1

	// atATime is how many events are handed on at a time, at most.
	atATime = 256
)

// Listen subscribes to the events. The listener is to be closed, after Run has returned.
func Listen(zone uint16, what Interest) (*Listener, error) {
	fd, err := bind(what.groups(), receiveBuffer, filter(zone, what)...)
	if err != nil {
		return nil, fmt.Errorf("subscribe to connection-tracking events: %w", err)
	}
	var eventfds [2]int
	for i := range eventfds {
		if eventfds[i], err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
			for _, open := range append(eventfds[:i:i], fd) {
				_ = unix.Close(open)
			}
			return nil, fmt.Errorf("make a descriptor that wakes the subscription to connection-tracking events: %w", err)
		}
	}
	end, ask := eventfds[0], eventfds[1]
	return &Listener{
		fd: fd, end: end, ended: os.NewFile(uintptr(end), "eventfd"),
		ask: ask, asked: os.NewFile(uintptr(ask), "eventfd"), flush: make(chan chan struct{}, 64), inbox: newInbox(),
	}, nil
}

// Close ends the subscription.
func (l *Listener) Close() {
	l.once.Do(func() {
		_ = unix.Close(l.fd)
		_ = l.ended.Close()
		_ = l.asked.Close()
	})
}

// Flush returns when everything that had happened before the call has been handed on,
// which Run does.
func (l *Listener) Flush(ctx context.Context) error {
	done := make(chan struct{})
	select {
	case l.flush <- done:
	case <-ctx.Done():
		return fmt.Errorf("wait for connection-tracking events: %w", ctx.Err())
	}
	if _, err := l.asked.Write([]byte{7: 1}); err != nil {
		return fmt.Errorf("wake the reader of connection-tracking events: %w", err)
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for connection-tracking events: %w", ctx.Err())
	}
}

// waiting takes those who wait for Flush.
func (l *Listener) waiting() (all []chan struct{}) {
	_, _ = unix.Read(l.ask, make([]byte, 8)) // EAGAIN: nobody does
	for {
		select {
		case done := <-l.flush:
			all = append(all, done)
		default:
			return all
		}
	}
}

// Run hands on events until the context ends, some at a time, which are the callee's
// until it returns. It calls each from one goroutine; while each takes its time, events
// gather in the socket's buffer, and are Lost when that is full. The kernel never waits.
func (l *Listener) Run(ctx context.Context, each func([]Event)) error {
	defer context.AfterFunc(ctx, func() { _, _ = l.ended.Write([]byte{7: 1}) })() // eight bytes, not all zero
	for {
		if err := wait(never, l.end, l.ask, l.fd); err != nil {
			return err
		}
		waiting := l.waiting()
		for more := true; more; {
			if ctx.Err() != nil {
				return nil
			}
			var err error
			if more, err = l.read(); err != nil {
				return err
			}
			if len(l.batch) > 0 {
				each(l.batch)
			}
		}
		for _, done := range waiting {
			close(done)
		}
		if err := wait(together, l.end, l.ask); err != nil {
			return err
		}
	}
}

// wait until one of the descriptors is readable or the time is over.
func wait(milliseconds int, fds ...int) error {
	polled := make([]unix.PollFd, 0, 3)
	for _, fd := range fds {
		polled = append(polled, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
	}
	for {
		_, err := unix.Poll(polled, milliseconds)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for connection-tracking events: %w", err)
		}
	}
}

// read makes a batch of what the socket has; more tells that there may be more.
func (l *Listener) read() (more bool, err error) {
	l.batch = l.batch[:0]
	for len(l.batch) < atATime {
		n, err := l.inbox.receive(l.fd)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return false, nil
		case errors.Is(err, unix.ENOBUFS):
			l.batch = append(l.batch, Event{Kind: Lost})
			continue
		case err != nil:
			return false, fmt.Errorf("receive connection-tracking events: %w", err)
		}
		for i := range n {
			if err := messages(l.inbox.datagram(i), l.take); err != nil {
				return false, fmt.Errorf("read a connection-tracking event: %w", err)
			}
		}
	}
	return true, nil
}

func (l *Listener) take(h header, body []byte) error {
	kind, ok := kindOf(h.kind, h.flags)
	if !ok {
		return nil
	}
	e, err := parse(body)
	if err == nil {
		l.batch = append(l.batch, Event{Kind: kind, Asked: isOwn(h.port), Entry: e})
	}
	return err
}

// kindOf tells the events apart: a new and an updated entry have the same type of
// message (nf_conntrack_netlink.c, ctnetlink_conntrack_event).
func kindOf(message, flags uint16) (EventKind, bool) {
	switch {
	case message == newEntry && flags&unix.NLM_F_CREATE != 0:
		return New, true
	case message == newEntry:
		return Updated, true
	case message == deleteEntry:
		return Destroyed, true
	}
	return 0, false
}
