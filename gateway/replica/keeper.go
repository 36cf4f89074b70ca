package replica

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/sallyport/sallyport/vip"
)

// fence opens the kernel for addresses, until an instant of CLOCK_BOOTTIME at most.
type fence interface {
	RenewUntil(addrs []netip.Addr, until time.Duration) error
	Close(addrs []netip.Addr) error
}

// claimer puts a VIP on this host's interfaces and announces it.
type claimer interface {
	Claim(v vip.VIP) error
	Release(v vip.VIP) error
}

// keeper carries leases into the kernel: fence, address, announcement. It is one
// goroutine apart from the election, so that a slow kernel delays no heartbeat; and
// only the newest lease of a VIP counts, so that it never falls behind.
type keeper struct {
	fence   fence
	claimer claimer
	now     func() time.Duration // CLOCK_BOOTTIME
	log     *slog.Logger
	// claimed is called in a goroutine of its own after each claim; nil for nobody.
	claimed func(ctx context.Context, v vip.VIP)
	// unfit is told that the VIP cannot be claimed here and why, and for how long another
	// is to be let; nil for nobody.
	unfit func(v vip.VIP, why string, pause time.Duration)

	mu    sync.Mutex
	vips  map[string]vip.VIP
	until map[string]time.Duration // 0: to be released
	wake  chan struct{}
	held  map[string]bool // owned by run
	// tries are of VIPs whose last claim failed; owned by run.
	tries map[string]*attempts
	// again are VIPs held whose address was withdrawn and is to be put back.
	again map[string]bool
	// failed are the VIPs that are leased but whose address is not in place, and why.
	failed map[string]string

	// opening is held while the fence is told anything, so that no renewal that was
	// under way reopens what was closed.
	opening sync.Mutex
}

func newKeeper(f fence, c claimer, now func() time.Duration, log *slog.Logger) *keeper {
	return &keeper{
		fence: f, claimer: c, now: now, log: log, vips: map[string]vip.VIP{}, until: map[string]time.Duration{},
		wake: make(chan struct{}, 1), held: map[string]bool{}, tries: map[string]*attempts{}, again: map[string]bool{}, failed: map[string]string{},
	}
}

// lease sets how long the VIP may be held; 0 is not at all. When it returns from a 0
// the VIP is silent: the other members may be told.
func (k *keeper) lease(v vip.VIP, until time.Duration) {
	name := v.Addr.String()
	k.mu.Lock()
	k.vips[name], k.until[name] = v, until
	k.mu.Unlock()
	if until == 0 {
		k.close(name, v)
	}
	k.rouse()
}

// close silences the VIP. Should the kernel refuse, it ends with the lease.
func (k *keeper) close(name string, v vip.VIP) {
	k.opening.Lock()
	defer k.opening.Unlock()
	if err := k.fence.Close(v.Addrs()); err != nil {
		k.log.Error("the fence is not closed at once, it ends with the lease", "vip", name, "error", err)
	}
}

// open lets the VIP speak until its lease ends.
func (k *keeper) open(name string, v vip.VIP) error {
	k.opening.Lock()
	defer k.opening.Unlock()
	k.mu.Lock()
	until := k.until[name]
	k.mu.Unlock()
	if until == 0 {
		return errLost
	}
	return k.fence.RenewUntil(v.Addrs(), until)
}

var errLost = errors.New("the lease was lost meanwhile")

// run serves until the context ends, then releases what is held.
func (k *keeper) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			k.mu.Lock()
			for name := range k.until {
				k.until[name] = 0
			}
			k.mu.Unlock()
			k.settle(ctx)
			return nil
		case <-k.wake:
			k.settle(ctx)
		}
	}
}

// settle makes the kernel follow the leases.
func (k *keeper) settle(ctx context.Context) {
	k.mu.Lock()
	until, vips := maps.Clone(k.until), maps.Clone(k.vips)
	k.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(until)) {
		switch v := vips[name]; {
		case until[name] > k.now():
			k.hold(ctx, name, v)
		case k.held[name]:
			k.release(name, v)
		}
	}
}

func (k *keeper) hold(ctx context.Context, name string, v vip.VIP) {
	if err := k.open(name, v); err != nil {
		if !errors.Is(err, errLost) {
			// The kernel ends what is not renewed: the VIP is silent until it works again.
			k.log.Error("the fence is not renewed, the VIP falls silent", "vip", name, "error", err)
		}
		return
	}
	k.mu.Lock()
	again := k.again[name]
	delete(k.again, name)
	k.mu.Unlock()
	tries := k.tries[name]
	if k.held[name] && !again && (tries == nil || !tries.due(k.now())) {
		return
	}
	// Held even when it failed half way: what was done must be undone.
	k.held[name] = true
	if err := k.claimer.Claim(v); err != nil {
		k.claimFailed(name, v, err)
		return
	}
	if tries != nil {
		k.log.Info("claimed after all", "vip", name)
		delete(k.tries, name)
		k.mu.Lock()
		delete(k.failed, name)
		k.mu.Unlock()
	}
	if k.claimed != nil {
		go k.claimed(ctx, v)
	}
}

// claimFailed has the claim tried again as long as the lease lasts, and when that is of
// no use, lets another replica.
func (k *keeper) claimFailed(name string, v vip.VIP, err error) {
	k.mu.Lock()
	known := k.failed[name] == err.Error()
	k.failed[name] = err.Error()
	k.mu.Unlock()
	if !known {
		k.log.Error("claim failed, it is tried again", "vip", name, "error", err)
	}
	if k.tries[name] == nil {
		k.tries[name] = &attempts{}
	}
	if pause := k.tries[name].fail(k.now()); pause > 0 && k.unfit != nil {
		k.unfit(v, err.Error(), pause)
	}
}

func (k *keeper) release(name string, v vip.VIP) {
	k.close(name, v)
	if err := k.claimer.Release(v); err != nil {
		k.log.Error("release failed", "vip", name, "error", err)
	}
	delete(k.held, name)
	if tries := k.tries[name]; tries != nil {
		tries.over()
	}
	k.mu.Lock()
	delete(k.failed, name)
	delete(k.again, name)
	k.mu.Unlock()
}

// withdraw takes the address of a VIP off that is held on: what comes for it waits, and
// what is under way still leaves.
func (k *keeper) withdraw(v vip.VIP) error { return k.claimer.Release(v) }

// restore puts the address of a VIP back if it is still held.
func (k *keeper) restore(v vip.VIP) {
	k.mu.Lock()
	k.again[v.Addr.String()] = true
	k.mu.Unlock()
	k.rouse()
}

func (k *keeper) rouse() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// failures are the VIPs that are leased but not in place, with the reason.
func (k *keeper) failures() map[string]string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return maps.Clone(k.failed)
}
