package layer2

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// announces sends what a process would that was stopped between looking at its lease and
// sending, with an invented MAC to tell it by.
func (s *station) announces(t *testing.T, iface string, about netip.Addr, as byte) error {
	t.Helper()
	link, err := s.links.LinkByName(iface)
	must(t, err)
	return s.send(link.Attrs().Index, arpFrame(arpRequest, net.HardwareAddr{2, 0, 0, 0, 0, as}, about, nil, about))
}

// hears gives the invented MACs heard to claim the VIP, in order.
func (s *station) hears(t *testing.T) <-chan byte {
	t.Helper()
	ears, err := s.ListenConflicts(v)
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	heard, done := make(chan byte, 16), make(chan error)
	go func() { done <- ears.Run(ctx, func(c Conflict) { heard <- c.MAC[5] }) }()
	t.Cleanup(func() {
		cancel()
		must(t, <-done)
	})
	return heard
}

func TestGuardStopsWhatIsAnnouncedLate(t *testing.T) {
	for name, made := range map[string]string{
		"eth0":  "ip link set eth0 up",
		"mac.0": "ip link add link eth0 name mac.0 type macvlan mode bridge && ip link set mac.0 up",
	} {
		t.Run(name, func(t *testing.T) {
			s := segment(t, "a", "b")
			a, heard := s["a"], s["b"].hears(t)
			sh(t, a.ns, made)
			other := netip.MustParseAddr("192.0.2.11")
			both := []netip.Addr{addr, other}
			must(t, a.fence.Install(t.Context(), both, 10*time.Second))
			must(t, a.fence.Guard(t.Context(), name))
			passes := func(what string, as byte) {
				t.Helper()
				must(t, a.announces(t, name, addr, as))
				select {
				case got := <-heard:
					if got != as {
						t.Errorf("%s: %d was heard first", what, got)
					}
				case <-time.After(10 * time.Second):
					t.Fatalf("%s: nothing was heard", what)
				}
			}
			stops := func(what string, as byte) {
				t.Helper()
				before, err := a.fence.Dropped()
				must(t, err)
				if err := a.announces(t, name, addr, as); !errors.Is(err, unix.ENOBUFS) {
					t.Errorf("%s: it was sent (%v)", what, err)
				}
				if after, err := a.fence.Dropped(); err != nil || after != before+1 {
					t.Errorf("%s: %d were counted, %v", what, after-before, err)
				}
			}
			stops("never held", 1)
			must(t, a.fence.Renew([]netip.Addr{other}, 10*time.Second))
			stops("another is held", 2)
			must(t, a.fence.Renew(only, 10*time.Second))
			passes("held", 3)
			must(t, a.fence.Close(only))
			stops("closed", 4)
			must(t, a.fence.Renew(only, 10*time.Second))
			must(t, a.fence.Renew(only, 50*time.Millisecond)) // shorter than what is left
			eventually(t, "the kernel ends it", func() bool {
				held, err := a.fence.Held()
				_, is := held[addr]
				return err == nil && !is
			})
			stops("over", 5)
			must(t, a.fence.Renew(only, 10*time.Second))
			passes("held anew", 6)
			must(t, a.fence.Install(t.Context(), both, 10*time.Second)) // a process that is restarted
			must(t, a.fence.Guard(t.Context(), name))
			stops("restarted", 7)
			must(t, a.fence.Remove())
			passes("without a fence", 8)
		})
	}
}

// Before Linux 6.16 a chain goes with its interface.
func TestGuardOfAnInterfaceThatIsMadeAnew(t *testing.T) {
	a := segment(t, "a")["a"]
	a.install(t)
	must(t, a.fence.Guard(t.Context(), "eth0")) // it is there already
	for range 2 {
		sh(t, a.ns, "ip link del eth0")
		sh(t, a.ns, "ip link add eth0 type veth peer name far && ip link set eth0 up && ip link set far up")
		must(t, a.fence.Guard(t.Context(), "eth0"))
		if err := a.announces(t, "eth0", addr, 1); !errors.Is(err, unix.ENOBUFS) {
			t.Errorf("announced by an interface made anew (%v)", err)
		}
		must(t, a.fence.Renew(only, 10*time.Second))
		must(t, a.announces(t, "eth0", addr, 2))
		must(t, a.fence.Close(only))
	}
}

// What a process sends that was stopped on its way to renew, when the fence has closed.
func TestALateRenewalOpensNothing(t *testing.T) {
	s := segment(t, "a", "b")
	a, b := s["a"], s["b"]
	sh(t, a.ns, "ip addr add 192.0.2.10/32 dev eth0")
	a.install(t)
	must(t, a.fence.Guard(t.Context(), "eth0"))
	must(t, a.fence.Renew(only, 10*time.Second))
	must(t, a.fence.Renew(only, 10*time.Second))
	if got := b.asks(t); got != a.mac {
		t.Fatalf("renewed: %q answers, want %s", got, a.mac)
	}
	must(t, a.fence.Close(only))
	renewal := number(a.fence.rungs, 0, false)
	if err := a.fence.tell(addr, renewal); !errors.Is(err, ErrNotTaken) {
		t.Errorf("its packet was taken (%v)", err)
	}
	must(t, a.send(a.fence.loop, arpFrame(renewal, nil, addr, nil, addr)))
	if got := b.asks(t); got != "" {
		t.Errorf("its frame has %s answer", got)
	}
	if held, err := a.fence.Held(); err != nil || len(held) != 0 {
		t.Errorf("held: %v, %v", held, err)
	}
	// An interface that comes while the address is held: its guard is new and knows nothing of that.
	must(t, a.fence.Renew(only, 10*time.Second))
	sh(t, a.ns, "nft delete table netdev sally_fence")
	clear(a.fence.guards)
	must(t, a.fence.Guard(t.Context(), "eth0"))
	must(t, a.fence.Renew(only, 10*time.Second))
	if got := b.asks(t); got != a.mac {
		t.Errorf("renewed behind a new guard: %q answers, want %s", got, a.mac)
	}
}
