package wiring

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// events of the kernel. A channel is closed when its socket has lost some.
type events struct {
	links      chan netlink.LinkUpdate
	routes     chan netlink.RouteUpdate
	neighbours chan netlink.NeighUpdate
	done       chan struct{}

	mu  sync.Mutex
	err error
}

// room in the sockets for a burst of pods.
const room = 1 << 20

func subscribe() (*events, error) {
	e := &events{
		links: make(chan netlink.LinkUpdate, 64), routes: make(chan netlink.RouteUpdate, 64),
		neighbours: make(chan netlink.NeighUpdate, 64), done: make(chan struct{}),
	}
	if err := netlink.LinkSubscribeWithOptions(e.links, e.done, netlink.LinkSubscribeOptions{ErrorCallback: e.fail, ReceiveBufferSize: room}); err != nil {
		close(e.done)
		return nil, fmt.Errorf("listen for changes of interfaces: %w", err)
	}
	if err := netlink.RouteSubscribeWithOptions(e.routes, e.done, netlink.RouteSubscribeOptions{ErrorCallback: e.fail, ReceiveBufferSize: room}); err != nil {
		close(e.done)
		return nil, fmt.Errorf("listen for changes of routes: %w", err)
	}
	if err := netlink.NeighSubscribeWithOptions(e.neighbours, e.done, netlink.NeighSubscribeOptions{ErrorCallback: e.fail, ReceiveBufferSize: room}); err != nil {
		close(e.done)
		return nil, fmt.Errorf("listen for changes of neighbours: %w", err)
	}
	return e, nil
}

func (e *events) fail(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.err = errors.Join(e.err, err)
}

func (e *events) lost() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return fmt.Errorf("the kernel's events ended: %w", e.err)
}

// close ends the subscriptions, each of which may be about to send.
func (e *events) close() {
	close(e.done)
	for range e.links {
	}
	for range e.routes {
	}
	for range e.neighbours {
	}
}

func read() (*tables, error) {
	t := newTables()
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	for _, l := range links {
		t.add(l.Attrs().Index, l.Type())
	}
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		t.route(unix.RTM_NEWROUTE, r)
	}
	for _, family := range []int{unix.AF_INET, unix.AF_BRIDGE} {
		neighbours, err := netlink.NeighList(0, family)
		if err != nil {
			return nil, fmt.Errorf("list neighbours: %w", err)
		}
		for _, n := range neighbours {
			t.neighbour(unix.RTM_NEWNEIGH, n)
		}
	}
	return t, nil
}

// ask makes the kernel resolve addresses that lie in the range of a bridge: the
// answer brings the neighbour entry and the bridge's.
func ask(addrs []netip.Addr) error {
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("list interfaces: %w", err)
	}
	var errs []error
	for _, l := range links {
		if l.Type() != "bridge" {
			continue
		}
		own, err := netlink.AddrList(l, netlink.FAMILY_V4)
		if err != nil {
			errs = append(errs, fmt.Errorf("list addresses of %s: %w", l.Attrs().Name, err))
			continue
		}
		for _, a := range addrs {
			if !onBridge(own, a) {
				continue
			}
			n := &netlink.Neigh{LinkIndex: l.Attrs().Index, Family: netlink.FAMILY_V4, IP: a.AsSlice(), Flags: netlink.NTF_USE}
			if err := netlink.NeighSet(n); err != nil {
				errs = append(errs, fmt.Errorf("ask for %s on %s: %w", a, l.Attrs().Name, err))
			}
		}
	}
	return errors.Join(errs...)
}

func onBridge(own []netlink.Addr, a netip.Addr) bool {
	for _, o := range own {
		if o.Contains(net.IP(a.AsSlice())) && !o.IP.Equal(net.IP(a.AsSlice())) {
			return true
		}
	}
	return false
}
