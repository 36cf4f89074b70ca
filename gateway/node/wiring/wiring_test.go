package wiring

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sallyport/sallyport/e2e/netns"
	"github.com/sallyport/sallyport/gateway"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// node is a host with a watch in it, and pods in namespaces of their own.
type node struct {
	t       *testing.T
	ns      *netns.NS
	watch   *Watch
	changed chan struct{}
}

func newNode(t *testing.T) *node {
	if os.Geteuid() != 0 {
		t.Skip("needs root for network namespaces")
	}
	n := &node{t: t, ns: namespace(t, "node"), changed: make(chan struct{}, 1)}
	n.watch = New(func() {
		select {
		case n.changed <- struct{}{}:
		default:
		}
	}, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	n.ip("link set lo up")
	go func() { done <- n.ns.Do(func() error { return n.watch.Run(ctx) }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return n
}

func namespace(t *testing.T, name string) *netns.NS {
	ns, err := netns.New(fmt.Sprintf("kdw%d-%s", os.Getpid(), name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ns.Close(); err != nil {
			t.Error(err)
		}
	})
	return ns
}

func (n *node) ip(line string) {
	n.t.Helper()
	if _, err := n.ns.Run("ip", strings.Fields(line)...); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) index(link string) (index int) {
	n.t.Helper()
	err := n.ns.Do(func() error {
		i, err := net.InterfaceByName(link)
		if err == nil {
			index = i.Index
		}
		return err
	})
	if err != nil {
		n.t.Fatal(err)
	}
	return index
}

// pod is behind a veth, whose end on the node gets the name and hardware address.
func (n *node) pod(name, mac, addr string) {
	n.t.Helper()
	pod := namespace(n.t, name)
	n.ip("link add " + name + " type veth peer name eth0 address " + mac + " netns " + pod.Name)
	n.ip("link set " + name + " up")
	for _, line := range []string{"link set eth0 up", "addr add " + addr + " dev eth0"} {
		if _, err := pod.Run("ip", strings.Fields(line)...); err != nil {
			n.t.Fatal(err)
		}
	}
}

// await the home of the address, where the watch tells of every change; the zero Home
// is none.
func (n *node) await(addr netip.Addr, want gateway.Home) gateway.Network {
	n.t.Helper()
	late := time.After(10 * time.Second)
	for {
		var got gateway.Network
		if err := n.ns.Do(func() error { got = n.watch.Follow([]netip.Addr{addr}); return nil }); err != nil {
			n.t.Fatal(err)
		}
		if got.Interfaces != nil && got.Behind[addr] == want {
			return got
		}
		select {
		case <-n.changed:
		case <-late:
			n.t.Fatalf("%s is behind %+v, want %+v", addr, got.Behind[addr], want)
		}
	}
}

func TestBehindABridge(t *testing.T) {
	n := newNode(t)
	addr := netip.MustParseAddr("10.244.1.10")
	n.ip("link add cni0 type bridge")
	n.ip("link set cni0 up")
	n.ip("addr add 10.244.1.1/24 dev cni0")
	n.pod("a0", "02:00:00:00:00:0a", "10.244.1.10/24")
	n.ip("link set a0 master cni0")
	old := n.index("a0")
	n.await(addr, gateway.Home{Interface: old}) // it never sent anything: it was asked for

	n.ip("link set a0 down")
	n.ip("link set a0 up")
	if net := n.await(addr, gateway.Home{Interface: old}); !net.Interfaces[old] {
		t.Error("an interface that went down and up is gone")
	}
	n.ip("link del a0")
	if net := n.await(addr, gateway.Home{}); net.Interfaces[old] {
		t.Error("the deleted port is still there")
	}
	// The next pod with the address and, as some plugins make them from it, the same
	// hardware address.
	n.pod("b0", "02:00:00:00:00:0a", "10.244.1.10/24")
	n.ip("link set b0 master cni0")
	n.watch.Follow(nil)
	if next := n.index("b0"); next == old {
		t.Errorf("the kernel gave index %d twice", next)
	} else {
		n.await(addr, gateway.Home{Interface: next})
	}
}

func TestBehindARoute(t *testing.T) {
	n := newNode(t)
	addr := netip.MustParseAddr("10.244.1.10")
	n.pod("a0", "02:00:00:00:00:0a", "10.244.1.10/32")
	n.pod("b0", "02:00:00:00:00:0b", "10.244.1.11/32")
	for _, other := range []string{
		"route add 10.244.1.10 dev b0 table 100",
		"route add 10.244.1.0/24 dev b0",
		"route add 10.244.9.9 dev b0",
		"route add 10.244.1.10 via 10.244.9.9 dev b0 metric 9",
		"route add blackhole 10.244.1.10 metric 10",
	} {
		n.ip(other)
	}
	n.await(addr, gateway.Home{})
	home := gateway.Home{Interface: n.index("a0"), Routed: true}
	n.ip("route add 10.244.1.10 dev a0")
	n.await(addr, home)
	n.ip("route del 10.244.1.10 dev a0")
	n.await(addr, gateway.Home{})
	n.ip("route add 10.244.1.10 dev a0")
	n.await(addr, home)
	n.ip("route replace 10.244.1.10 dev b0")
	n.await(addr, gateway.Home{Interface: n.index("b0"), Routed: true})
	n.ip("route replace 10.244.1.10 dev a0")
	n.await(addr, home)
	n.ip("link del a0")
	if net := n.await(addr, gateway.Home{}); net.Interfaces[home.Interface] {
		t.Error("the deleted interface is still there")
	}
}

// What was there before the watch is known without an event.
func TestWhatIsThereAlready(t *testing.T) {
	n := newNode(t)
	addr := netip.MustParseAddr("10.244.1.10")
	n.pod("a0", "02:00:00:00:00:0a", "10.244.1.10/32")
	n.ip("route add 10.244.1.10 dev a0")
	home := gateway.Home{Interface: n.index("a0"), Routed: true}
	n.await(addr, home)
	late := New(func() {}, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	told := make(chan struct{}, 1)
	late.changed = func() {
		select {
		case told <- struct{}{}:
		default:
		}
	}
	done := make(chan error)
	go func() { done <- n.ns.Do(func() error { return late.Run(ctx) }) }()
	<-told
	if got := late.Follow([]netip.Addr{addr}); got.Behind[addr] != home {
		t.Errorf("behind %+v, want %+v", got.Behind[addr], home)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
