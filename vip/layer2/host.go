// Package layer2 makes a VIP real on a segment: it adds and removes the address,
// announces it, fences it off in the kernel for whoever does not hold it, and
// watches the links and the segment it lives on.
package layer2

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
	"sigs.k8s.io/knftables"

	"github.com/sallyport/sallyport/vip"
)

// Host is the network of this host, reached by sockets that stay open: what a
// takeover waits for must not have to open any.
type Host struct {
	ns     netns.NsHandle // None: the process's own
	links  *netlink.Handle
	routes *nl.SocketHandle // for address messages with attributes that netlink.Handle lacks
	frames int              // AF_PACKET, sends only
	raw    int              // IPv4 with our own header
	// protocols: the kernel keeps the protocol of an address.
	protocols bool

	program sync.Mutex
	nft     knftables.Interface
}

// Open gives the network that the process is in.
func Open() (*Host, error) { return OpenAt(netns.None()) }

// OpenAt gives another network namespace, which takes CAP_SYS_ADMIN: for tests and
// the lab. The caller keeps ns open for as long as the Host.
func OpenAt(ns netns.NsHandle) (*Host, error) {
	h := &Host{ns: ns, frames: -1, raw: -1}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return nil, fmt.Errorf("ask for the kernel's release: %w", err)
	}
	h.protocols = keepsProtocol(unix.ByteSliceToString(u.Release[:]))
	err := h.inside(func() error {
		var err error
		if h.links, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
			return fmt.Errorf("open rtnetlink: %w", err)
		}
		s, err := nl.GetNetlinkSocketAt(netns.None(), netns.None(), unix.NETLINK_ROUTE)
		if err != nil {
			return fmt.Errorf("open rtnetlink: %w", err)
		}
		h.routes = &nl.SocketHandle{Socket: s}
		if h.frames, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return fmt.Errorf("open a packet socket (needs CAP_NET_RAW): %w", err)
		}
		if h.raw, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, renewProtocol); err != nil {
			return fmt.Errorf("open a raw IP socket (needs CAP_NET_RAW): %w", err)
		}
		return unix.SetsockoptInt(h.raw, unix.IPPROTO_IP, unix.IP_HDRINCL, 1)
	})
	if err != nil {
		return nil, errors.Join(err, h.Close())
	}
	return h, nil
}

// Close gives the sockets back. It touches nothing in the kernel's configuration.
func (h *Host) Close() error {
	if h.links != nil {
		h.links.Close()
	}
	if h.routes != nil {
		h.routes.Close()
	}
	var errs []error
	for _, fd := range []int{h.frames, h.raw} {
		if fd >= 0 {
			errs = append(errs, unix.Close(fd))
		}
	}
	return errors.Join(errs...)
}

// rules runs a transaction by the nft program, which is asked for its version once.
func (h *Host) rules(ctx context.Context, fill func(tx *knftables.Transaction) error) error {
	return h.inside(func() error {
		h.program.Lock()
		var err error
		if h.nft == nil {
			h.nft, err = knftables.New("", "")
		}
		h.program.Unlock()
		if err != nil {
			return err
		}
		tx := h.nft.NewTransaction()
		if err := fill(tx); err != nil {
			return err
		}
		return h.nft.Run(ctx, tx)
	})
}

// inside runs f in the host's network namespace.
func (h *Host) inside(f func() error) error {
	if !h.ns.IsOpen() {
		return f()
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the runtime ends the thread with the goroutine
		if err := netns.Set(h.ns); err != nil {
			done <- fmt.Errorf("enter the network namespace: %w", err)
			return
		}
		done <- f()
	}()
	return <-done
}

// Interfaces are the host's interfaces with their addresses, as vip.Resolve wants them.
func (h *Host) Interfaces() ([]vip.Interface, error) {
	links, err := h.links.LinkList()
	for range dumpRetries {
		if !errors.Is(err, nl.ErrDumpInterrupted) {
			break
		}
		links, err = h.links.LinkList()
	}
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	all, err := h.addresses()
	if err != nil {
		return nil, err
	}
	var out []vip.Interface
	for _, l := range links {
		i := vip.Interface{Name: l.Attrs().Name}
		for _, a := range all {
			if a.index == l.Attrs().Index {
				i.Prefixes = append(i.Prefixes, netip.PrefixFrom(a.addr, a.bits))
			}
		}
		out = append(out, i)
	}
	return out, nil
}

// Boottime is CLOCK_BOOTTIME: it counts on while the host is suspended, so that a
// host which wakes up finds its lease over.
func Boottime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic(err) // Linux has had it since 2.6.39
	}
	return time.Duration(ts.Nano())
}
