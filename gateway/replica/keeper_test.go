package replica

import (
	"context"
	"log/slog"
	"net/netip"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	handle "github.com/vishvananda/netns"

	"github.com/sallyport/sallyport/e2e/netns"
	"github.com/sallyport/sallyport/election/boottime"
	"github.com/sallyport/sallyport/vip"
	"github.com/sallyport/sallyport/vip/layer2"
)

func sh(t *testing.T, command string) string {
	t.Helper()
	out, err := exec.Command("sh", "-c", command).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", command, err, out)
	}
	return string(out)
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
		<-time.After(time.Millisecond)
	}
}

// keep runs a keeper on a host of its own, with a real fence and real addresses.
func keep(t *testing.T, options ...func(*keeper)) (*keeper, *layer2.Fence, vip.VIP, context.CancelFunc) {
	netns.Test(t)
	sh(t, "ip link add eth0 type veth peer name far; ip link set eth0 up; ip link set far up; ip addr add 192.0.2.1/24 dev eth0; ip addr add 10.0.0.1/24 dev far")
	h, err := layer2.Open()
	if err != nil {
		t.Fatal(err)
	}
	f, err := layer2.NewFence(h)
	if err != nil {
		t.Fatal(err)
	}
	v, err := vip.Parse("192.0.2.10@eth0,via=10.0.0.10@far")
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Install(t.Context(), v.Addrs(), time.Minute); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	say := layer2.NewAnnouncer(h, f, log)
	k := newKeeper(f, say, boottime.Now, log)
	for _, set := range options {
		set(k)
	}
	t.Cleanup(func() { // after the keeper has ended
		say.Close()
		f.Stop()
		h.Close()
	})
	return k, f, v, serve(t, k)
}

func has(t *testing.T, addr netip.Addr) bool {
	t.Helper()
	return strings.Contains(sh(t, "ip -o addr"), " "+addr.String()+"/32 ")
}

func TestALeaseIsHeldUntilItIsGivenBack(t *testing.T) {
	k, f, v, _ := keep(t)
	k.lease(v, boottime.Now()+30*time.Second)
	eventually(t, "both addresses are on their interfaces", func() bool { return has(t, v.Addr) && has(t, v.Via) })
	held, err := f.Held()
	if err != nil || held[v.Addr] == 0 || held[v.Via] == 0 {
		t.Fatalf("held %v, %v: the fence is not open for both", held, err)
	}
	if held[v.Addr] > 30*time.Second {
		t.Errorf("the fence is open for %v, longer than the lease", held[v.Addr])
	}
	k.lease(v, 0)
	if held, err := f.Held(); err != nil || len(held) != 0 {
		t.Errorf("held %v, %v after it was given back", held, err)
	}
	eventually(t, "the addresses are gone", func() bool { return !has(t, v.Addr) && !has(t, v.Via) })
}

// watched notices a renewal while nothing is leased.
type watched struct {
	fence
	givenBack, reopened atomic.Bool
}

func (w *watched) RenewUntil(addrs []netip.Addr, until time.Duration) error {
	if w.givenBack.Load() {
		w.reopened.Store(true)
	}
	return w.fence.RenewUntil(addrs, until)
}

// What is given back is silent at once and stays so, whatever is under way: the others
// are told right after. The release of the last round may still close meanwhile.
func TestGivenBackIsSilentAtOnce(t *testing.T) {
	w := &watched{}
	k, f, v, _ := keep(t, func(k *keeper) { w.fence, k.fence = k.fence, w })
	for i := range 500 {
		w.givenBack.Store(false)
		for range i % 4 {
			k.lease(v, boottime.Now()+30*time.Second)
		}
		k.lease(v, 0)
		w.givenBack.Store(true)
		if held, err := f.Held(); err != nil || len(held) != 0 {
			t.Fatalf("round %d: held %v, %v after it was given back", i, held, err)
		}
		eventually(t, "the keeper has looked", func() bool { return len(k.wake) == 0 })
		if w.reopened.Load() {
			t.Fatalf("round %d: a renewal opened the fence again", i)
		}
	}
}

func TestALeaseThatIsOverIsNotHeld(t *testing.T) {
	k, f, v, _ := keep(t)
	k.lease(v, boottime.Now()-time.Millisecond)
	k.lease(v, boottime.Now()-time.Millisecond)
	eventually(t, "the keeper has looked", func() bool { return len(k.wake) == 0 })
	if held, err := f.Held(); err != nil || len(held) != 0 || has(t, v.Addr) {
		t.Errorf("held %v, %v, address there: %v", held, err, has(t, v.Addr))
	}
}

func TestTheEndOfTheProgramReleases(t *testing.T) {
	k, f, v, cancel := keep(t)
	k.lease(v, boottime.Now()+30*time.Second)
	eventually(t, "the address is there", func() bool { return has(t, v.Addr) })
	cancel()
	eventually(t, "the address is gone", func() bool { return !has(t, v.Addr) })
	eventually(t, "the fence is closed", func() bool { held, err := f.Held(); return err == nil && len(held) == 0 })
}

// Addresses that somebody takes off are put back, again and again; not one that is off on purpose.
func TestAnAddressThatIsTakenOffIsPutBack(t *testing.T) {
	k, _, v, _ := keep(t)
	here, err := handle.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer here.Close()
	h, err := layer2.OpenAt(here)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	looks := make(chan int, 64)
	go func() {
		done <- h.WatchGone(ctx, v.Addrs(), k.log, func(present []netip.Addr) {
			k.present(present)
			looks <- len(present)
		})
	}()
	<-looks
	k.lease(v, boottime.Now()+30*time.Second)
	both := func() bool { return has(t, v.Addr) && has(t, v.Via) }
	eventually(t, "both addresses are on their interfaces", both)
	for _, command := range []string{"ip addr del 192.0.2.10/32 dev eth0", "ip addr flush dev far", "ip addr del 192.0.2.10/32 dev eth0"} {
		sh(t, command)
		eventually(t, "both are back after "+command, both)
	}
	eventually(t, "it is withdrawn", func() bool { return k.withdraw(v) == nil })
	for <-looks > 0 { // until none is there
	}
	k.mu.Lock()
	again := k.posts[v.Addr.String()].again
	k.mu.Unlock()
	if again || has(t, v.Addr) || has(t, v.Via) {
		t.Error("what was withdrawn is put back")
	}
	k.restore(v)
	eventually(t, "both are restored", both)
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
