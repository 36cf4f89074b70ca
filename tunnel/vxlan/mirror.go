package vxlan

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// mirror is the routes of some tables as the kernel has them. Between two looks it
// follows what the kernel announces, whoever changed it: to list thousands for one that is
// new takes longer than all the rest. It is read anew after anything that is not plain,
// announcements that were lost included, and when it is old: routes of a device that goes
// down are removed and not announced (net/ipv4/fib_frontend.c, fib_disable_ip).
type mirror struct {
	asks, hears *conn

	first, last int
	// have is in the order of places, and in the kernel's where several share one; nil: to
	// be read.
	have []*entry
	old  time.Time // when it is to be read anew in any case
}

const (
	// announcements of some ten thousand routes wait in the kernel between two looks.
	announcements = 8 << 20
	// believed is how long announcements alone are.
	believed = 15 * time.Second
)

// newMirror subscribes in the network namespace of the calling thread. Room is that of the
// socket, in bytes: other programs' changes wait there too.
func newMirror(asks *conn, room int) (*mirror, error) {
	c, err := dial()
	if err != nil {
		return nil, err
	}
	if unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, room) != nil {
		err = unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, room)
	}
	for _, group := range []int{unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR} {
		if err == nil {
			err = unix.SetsockoptInt(c.fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, group)
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("subscribe to changes of routes: %w", err), c.close())
	}
	return &mirror{asks: asks, hears: c}, nil
}

// look gives the routes as they are now: to be read, and only until the next look. About
// is how many there may be.
func (m *mirror) look(first, last, about int) ([]*entry, error) {
	if m.first != first || m.last != last || !time.Now().Before(m.old) {
		m.have = nil
	}
	m.hear()
	if m.have != nil {
		return m.have, nil
	}
	m.first, m.last, m.old = first, last, time.Now().Add(believed)
	have, err := m.asks.listed(first, last, about)
	if err != nil {
		return nil, err
	}
	m.have = have
	return have, nil
}

// hear takes in what has been announced. What is announced of a time before a reading and
// heard after it says again what was read, up to the last word on each route.
func (m *mirror) hear() {
	for {
		switch err := m.hears.read(unix.MSG_DONTWAIT, m.announced); {
		case errors.Is(err, unix.EAGAIN):
			return
		case errors.Is(err, unix.ENOBUFS):
			// What else is lost before the socket is empty is not told
			// (net/netlink/af_netlink.c, netlink_overrun).
			m.have = nil
		case err != nil:
			m.have = nil
			return
		}
	}
}

// announced is one change. Nothing says that routes went with their device, or with its
// last address.
func (m *mirror) announced(h header, b []byte) {
	switch h.typ {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK, unix.RTM_NEWADDR, unix.RTM_DELADDR:
		if len(b) < unix.SizeofIfAddrmsg {
			return
		}
		index := int(asU32(b[4:])) // of both, struct ifinfomsg and struct ifaddrmsg
		if slices.ContainsFunc(m.have, func(e *entry) bool { return e.oif == index }) {
			m.have = nil
		}
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		if m.have == nil || len(b) < unix.SizeofRtMsg || b[0] != unix.AF_INET {
			return
		}
		if e := decodeRoute(b); m.first <= e.table && e.table <= m.last {
			m.take(&e, h)
		}
	}
}

// take in a route that came or went.
func (m *mirror) take(e *entry, h header) {
	at, is := slices.BinarySearchFunc(m.have, e.key, func(e *entry, k key) int { return e.key.compare(k) })
	several := is && at+1 < len(m.have) && m.have[at+1].key == e.key
	replaces := h.flags&unix.NLM_F_REPLACE != 0
	switch {
	case several || !e.plain || is && !m.have[at].plain:
		m.have = nil // the place's order is the kernel's
	case h.typ == unix.RTM_DELROUTE && is:
		m.have = slices.Delete(m.have, at, at+1)
	case h.typ == unix.RTM_DELROUTE:
	case !is:
		m.have = slices.Insert(m.have, at, e)
	case replaces:
		m.have[at] = e
	default:
		m.have = nil // beside another, or said again
	}
}
