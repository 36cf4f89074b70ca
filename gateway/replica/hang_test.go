package replica

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport/sallyport/election"
	"github.com/sallyport/sallyport/election/boottime"
	"github.com/sallyport/sallyport/election/gossip"
	"github.com/sallyport/sallyport/vip"
	"github.com/sallyport/sallyport/vip/layer2"
)

// kernel is one as far as a keeper sees it, parts of which can hang or refuse.
type kernel struct {
	mu       sync.Mutex
	until    map[netip.Addr]time.Duration
	renewals map[netip.Addr]int
	placed   map[netip.Addr]bool
	refusal  error
	renewing chan struct{}                // nil, or what a renewal waits for
	claiming map[netip.Addr]chan struct{} // what a claim waits for
}

func newKernel() *kernel {
	return &kernel{until: map[netip.Addr]time.Duration{}, renewals: map[netip.Addr]int{}, placed: map[netip.Addr]bool{}, claiming: map[netip.Addr]chan struct{}{}}
}

func (k *kernel) RenewUntil(addrs []netip.Addr, until time.Duration) error {
	k.mu.Lock()
	hang := k.renewing
	k.mu.Unlock()
	if hang != nil {
		<-hang
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.refusal != nil {
		return k.refusal
	}
	for _, a := range addrs {
		k.until[a] = until
		k.renewals[a]++
	}
	return nil
}

func (k *kernel) Close(addrs []netip.Addr) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, a := range addrs {
		delete(k.until, a)
	}
	return nil
}

func (k *kernel) Ajar([]netip.Addr, bool) error { return nil }

func (k *kernel) Claim(v vip.VIP) error {
	k.mu.Lock()
	hang := k.claiming[v.Addr]
	k.mu.Unlock()
	if hang != nil {
		<-hang
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.placed[v.Addr] = true
	return nil
}

func (k *kernel) Release(v vip.VIP) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.placed, v.Addr)
	return nil
}

func (k *kernel) refuse(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.refusal = err
}

func (k *kernel) has(v vip.VIP) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.placed[v.Addr]
}

func (k *kernel) opened(v vip.VIP) (until time.Duration, renewals int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.until[v.Addr], k.renewals[v.Addr]
}

var (
	one = vip.VIP{Addr: netip.MustParseAddr("192.0.2.10"), Interface: "eth0"}
	two = vip.VIP{Addr: netip.MustParseAddr("192.0.2.11"), Interface: "eth0"}
)

// clock is one that is put on by hand.
type clock struct{ atomic.Int64 }

func (c *clock) now() time.Duration { return time.Duration(c.Load()) }

// bars are what a keeper gave up.
type bars struct {
	mu  sync.Mutex
	why map[string][]string
}

func (b *bars) unfit(v vip.VIP, why string, pause time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.why[v.Addr.String()] = append(b.why[v.Addr.String()], fmt.Sprint(pause, " ", why))
}

func (b *bars) of(v vip.VIP) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.why[v.Addr.String()]
}

// keepBy runs a keeper on a kernel of the test's.
func keepBy(t *testing.T, host *kernel, now func() time.Duration, options ...func(*keeper)) (*keeper, *bars) {
	k := newKeeper(host, host, now, slog.New(slog.DiscardHandler))
	b := &bars{why: map[string][]string{}}
	k.unfit = b.unfit
	for _, set := range options {
		set(k)
	}
	serve(t, k)
	return k, b
}

// serve runs a keeper until it is told to stop, or the test ends.
func serve(t *testing.T, k *keeper) (stop context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- k.run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return cancel
}

func (k *keeper) idle() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, p := range k.posts {
		if p.busy {
			return false
		}
	}
	return len(k.wake) == 0
}

// A claim that hangs costs its VIP, after a second, and nothing else: neither the
// renewals nor another VIP's claim wait for it.
func TestAClaimThatHangsHoldsUpNothingElse(t *testing.T) {
	host, hand := newKernel(), &clock{}
	hang := make(chan struct{})
	host.claiming[one.Addr] = hang
	k, gaveUp := keepBy(t, host, hand.now)
	t.Cleanup(func() { close(hang) })
	beat := func(ms int64) {
		hand.Store(int64(time.Hour) + ms*int64(time.Millisecond))
		for _, v := range []vip.VIP{one, two} {
			k.lease(v, hand.now()+100*time.Millisecond)
		}
	}
	beat(0)
	eventually(t, "the other VIP is claimed", func() bool { return host.has(two) })
	for ms := int64(20); ms < 1000; ms += 20 {
		beat(ms)
		for _, v := range []vip.VIP{one, two} {
			if until, _ := host.opened(v); until != hand.now()+100*time.Millisecond {
				t.Fatalf("the fence of %s is open until %v after %d ms, want the lease's end %v", v.Addr, until, ms, hand.now()+100*time.Millisecond)
			}
		}
	}
	eventually(t, "the keeper has looked", func() bool { return len(k.wake) == 0 })
	if why := gaveUp.of(one); len(why) != 0 {
		t.Errorf("gave up within its patience: %q", why)
	}
	beat(1020)
	eventually(t, "the VIP is left to another", func() bool {
		why := gaveUp.of(one)
		return len(why) == 1 && why[0] == "2s "+hangs
	})
	if why := k.failures()[one.Addr.String()]; why != hangs {
		t.Errorf("says of the VIP %q, want %q", why, hangs)
	}
	// It is elected again, and still hangs: for longer now.
	k.lease(one, 0)
	eventually(t, "the keeper has looked", func() bool { return len(k.wake) == 0 })
	beat(5000)
	eventually(t, "the VIP is left to another at once", func() bool { return len(gaveUp.of(one)) == 2 && gaveUp.of(one)[1] == "4s "+hangs })
	if why := gaveUp.of(two); len(why) != 0 {
		t.Errorf("the other VIP was given up: %q", why)
	}
}

// A kernel that refuses the renewal has silenced the VIP when the last lease it took is
// over: from then on the lease is of no use, and another's.
func TestALeaseWhoseFenceIsNotRenewedIsGivenUp(t *testing.T) {
	host, hand := newKernel(), &clock{}
	k, gaveUp := keepBy(t, host, hand.now)
	beat := func(ms int64) {
		hand.Store(int64(time.Hour) + ms*int64(time.Millisecond))
		k.lease(one, hand.now()+100*time.Millisecond)
		eventually(t, "the keeper has looked", func() bool { return k.idle() })
	}
	beat(0)
	beat(20)
	host.refuse(errors.New("no buffer space"))
	for ms := int64(40); ms < 140; ms += 20 {
		beat(ms)
	}
	if why := gaveUp.of(one); len(why) != 0 {
		t.Fatalf("gave up %q before the lease was over that it could not renew", why)
	}
	beat(140)
	beat(160)
	eventually(t, "it is given up", func() bool { return len(gaveUp.of(one)) > 0 })
	if why := gaveUp.of(one); len(why) != 1 || why[0] != "2s no buffer space" {
		t.Errorf("gave up %q, want once, with the cause", why)
	}
	if why := k.failures()[one.Addr.String()]; why != "no buffer space" {
		t.Errorf("says of the VIP %q", why)
	}
	k.lease(one, 0)
	eventually(t, "the address is off", func() bool { return !host.has(one) })
	host.refuse(layer2.ErrTooLate)
	beat(5000)
	beat(5200)
	if why := gaveUp.of(one); len(why) != 1 {
		t.Errorf("gave up %q: a lease that came late is nobody's fault", why)
	}
	if host.has(one) {
		t.Error("claimed while the fence is closed")
	}
}

// Whatever release is under way when a new lease comes, the VIP ends up in place and heard.
func TestANewLeaseOutlivesTheReleaseOfTheLast(t *testing.T) {
	host := newKernel()
	k, _ := keepBy(t, host, boottime.Now)
	for i := range 2000 {
		k.lease(one, 0)
		until := boottime.Now() + time.Minute
		k.lease(one, until)
		eventually(t, "the keeper has done", k.idle)
		eventually(t, "the address is in place", func() bool { return host.has(one) })
		if opened, _ := host.opened(one); opened != until {
			t.Fatalf("round %d: the fence is open until %v, the lease lasts until %v", i, opened, until)
		}
	}
}

// A fence that somebody removed is put up again, once for all that miss it.
func TestAFenceThatIsGoneIsPutUpAgain(t *testing.T) {
	host, hand := newKernel(), &clock{}
	hand.Store(int64(time.Hour))
	var mended atomic.Int32
	k, gaveUp := keepBy(t, host, hand.now, func(k *keeper) {
		k.mend = func(context.Context) error { mended.Add(1); host.refuse(nil); return nil }
	})
	host.refuse(fmt.Errorf("renew: %w", layer2.ErrNotTaken))
	k.lease(one, hand.now()+100*time.Millisecond)
	eventually(t, "it is put up", func() bool { return mended.Load() == 1 })
	eventually(t, "the VIP is claimed", func() bool { return host.has(one) })
	if why := gaveUp.of(one); len(why) != 0 || len(k.failures()) != 0 {
		t.Errorf("gave up %q, failures %v", why, k.failures())
	}
}

// cable joins the gateways of a test.
type cable struct {
	ends map[string]chan gossip.Message
}

type plug struct {
	*cable
	name string
}

func (p plug) Send(to string, payload []byte) error {
	select {
	case p.ends[to] <- gossip.Message{From: p.name, Payload: payload}:
		return nil
	default:
		return errors.New("it does not listen")
	}
}

func (p plug) Broadcast(payload []byte) error {
	var errs []error
	for to := range p.ends {
		if to != p.name {
			errs = append(errs, p.Send(to, payload))
		}
	}
	return errors.Join(errs...)
}

func (p plug) Messages() <-chan gossip.Message { return p.ends[p.name] }

// group runs three gateways that elect, each with a kernel of its own.
func group(t *testing.T, timing election.Timing) (names []string, kernels map[string]*kernel, elected map[string]*electorate) {
	names = []string{"a", "b", "c"}
	net := &cable{ends: map[string]chan gossip.Message{}}
	for _, name := range names {
		net.ends[name] = make(chan gossip.Message, 64)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	t.Cleanup(func() { cancel(); running.Wait() })
	kernels, elected = map[string]*kernel{}, map[string]*electorate{}
	log := slog.New(slog.DiscardHandler)
	for i, name := range names {
		kernels[name] = newKernel()
		k, _ := keepBy(t, kernels[name], boottime.Now)
		m, err := election.New(election.Config{
			ID: name, Incarnation: uint64(i + 1), Seed: uint64(i + 1), Replicas: 3, Voters: names,
			Timing: timing, VIPs: []string{one.Addr.String()},
		}, boottime.Now())
		if err != nil {
			t.Fatal(err)
		}
		fit := make(chan standing, 1)
		fit <- standing{vip: one.Addr.String(), ok: true}
		e := &electorate{
			messenger: plug{net, name}, keeper: k, id: name, now: boottime.Now, log: log, vips: map[string]vip.VIP{one.Addr.String(): one},
			standing: fit, turns: make(chan func()), ended: make(chan struct{}), electors: electors{names: names}, moved: func(vip.VIP, bool) {},
			machine: m, transitions: map[string]map[string]uint64{}, chronicle: election.NewChronicle([]string{one.Addr.String()}, 10, time.Now()),
			records: map[string]*election.Record{}, strangers: map[string]time.Time{},
		}
		elected[name] = e
		running.Go(func() { _ = e.run(ctx) })
	}
	return names, kernels, elected
}

// A renewal that hangs in the kernel ends the lease: another gateway takes the VIP, and
// the hung one does not claim it when it goes on.
func TestAReplicaWhoseRenewalHangsLosesItsVIPs(t *testing.T) {
	names, kernels, elected := group(t, election.Profiles["default"])
	hang := make(chan struct{})
	var free sync.Once
	t.Cleanup(func() { free.Do(func() { close(hang) }) })
	holder := func(but string) string {
		for _, name := range names {
			if until, _ := kernels[name].opened(one); name != but && kernels[name].has(one) && until > boottime.Now() {
				return name
			}
		}
		return ""
	}
	var first, second string
	eventually(t, "a holder", func() bool { first = holder(""); return first != "" })
	hung := kernels[first]
	hung.mu.Lock()
	hung.renewing = hang
	hung.mu.Unlock()
	eventually(t, "another holder", func() bool { second = holder(first); return second != "" })
	if until, _ := hung.opened(one); until > boottime.Now() {
		t.Errorf("%s holds while %s may still speak", second, first)
	}
	_, before := hung.opened(one)
	free.Do(func() { close(hang) })
	eventually(t, "the first one follows", func() bool { return elected[first].state(one.Addr).Holder == second && !hung.has(one) })
	if until, after := hung.opened(one); until > boottime.Now() {
		t.Errorf("%s speaks again, after %d renewals", first, after-before)
	}
}
