package conntrack

import (
	"context"
	"errors"
	"fmt"

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
	Entry Entry
}

// Listener receives the events of one zone. To miss nothing, Listen first, then Dump,
// then Run: what happens meanwhile waits in the socket. Repeating it over the dump
// ends in the truth, because the events of an entry are in order.
//
// With net.netfilter.nf_conntrack_events=2, the kernel's default, an entry born before
// the first listener has no events, not even of its end (nf_conntrack_ecache.c): keep
// a listener open always, and compare dumps as long as older entries live.
type Listener struct {
	zone uint16
	sock *socket
}

// groups are NFNLGRP_CONNTRACK_NEW, _UPDATE and _DESTROY, one bit each
// (include/uapi/linux/netfilter/nfnetlink.h).
const groups = 1<<0 | 1<<1 | 1<<2

// receiveBuffer holds some ten thousand events, which is what a crowd of new
// connections makes while the listener is not running.
const receiveBuffer = 8 << 20

// Listen subscribes to the events. The listener is to be closed.
func Listen(zone uint16) (*Listener, error) {
	sock, err := openSocket(groups, receiveBuffer)
	if err != nil {
		return nil, fmt.Errorf("subscribe to connection-tracking events: %w", err)
	}
	return &Listener{zone: zone, sock: sock}, nil
}

// Close ends the subscription.
func (l *Listener) Close() { l.sock.close() }

// Run hands on events until the context ends, which closes the listener. It calls each
// from one goroutine; while each takes its time, events gather in the socket's buffer,
// and are Lost when that is full. The kernel never waits.
func (l *Listener) Run(ctx context.Context, each func(Event)) error {
	defer context.AfterFunc(ctx, l.sock.close)()
	for {
		b, err := l.sock.receive()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS):
			each(Event{Kind: Lost})
			continue
		case err != nil:
			return fmt.Errorf("receive connection-tracking events: %w", err)
		}
		err = messages(b, func(h header, body []byte) error {
			kind, ok := kindOf(h.kind, h.flags)
			if !ok {
				return nil
			}
			e, err := parse(body)
			if err == nil && e.Zone == l.zone {
				each(Event{Kind: kind, Entry: e})
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("read a connection-tracking event: %w", err)
		}
	}
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
