package vxlan

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/sallyport/sallyport/e2e/netns"
	"github.com/sallyport/sallyport/tunnel"
)

func TestAnotherMTU(t *testing.T) {
	m := mtus{}
	for i, s := range []struct {
		index, mtu int
		gone, want bool
	}{
		{1, 1500, false, false}, {1, 1500, false, false}, {2, 1400, false, false},
		{1, 1400, false, true}, {1, 1400, false, false}, {2, 1400, false, false},
		{1, 1300, true, false}, {1, 1500, false, false}, {1, 9000, false, true},
	} {
		if got := m.differ(&netlink.LinkAttrs{Index: s.index, MTU: s.mtu}, s.gone); got != s.want {
			t.Errorf("%d: %+v gives %t", i, s, got)
		}
	}
}

func TestAnotherMTUIsTold(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root for network namespaces")
	}
	ns, err := netns.New(fmt.Sprintf("vxw%d", os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ns.Close(); err != nil {
			t.Error(err)
		}
	})
	ip := func(line string) {
		t.Helper()
		if _, err := ns.Run("ip", strings.Fields(line)...); err != nil {
			t.Fatal(err)
		}
	}
	ip("link add eth0 type veth peer name peer0")
	told := make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() {
		done <- ns.Do(func() error {
			a, err := New(tunnel.DefaultConfig(), slog.New(slog.DiscardHandler))
			if err != nil {
				return err
			}
			defer a.Close()
			return a.WatchMTU(ctx, func() {
				select {
				case told <- struct{}{}:
				default:
				}
			})
		})
	}()
	late := time.After(20 * time.Second)
	for mtu, listens := 1400, false; !listens; mtu-- { // until it does, what changes is what was there before
		ip(fmt.Sprintf("link set eth0 mtu %d", mtu))
		select {
		case <-told:
			listens = true
		case <-time.After(10 * time.Millisecond):
		case <-late:
			t.Fatal("a change of eth0's MTU is not told")
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
