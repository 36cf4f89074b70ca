package replica

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/sallyport/sallyport/vip"
	"github.com/sallyport/sallyport/vip/layer2"
)

// fence opens the kernel for addresses, until an instant of CLOCK_BOOTTIME at most.
type fence interface {
	RenewUntil(addrs []netip.Addr, until time.Duration) error
	Close(addrs []netip.Addr) error
	// Ajar says whether packets may go past its tables while they are open.
	Ajar(addrs []netip.Addr, may bool) error
}

// claimer puts a VIP on this host's interfaces and announces it.
type claimer interface {
	Claim(v vip.VIP) error
	Release(v vip.VIP) error
}

// keeper carries leases into the kernel: fence, address, announcement.
//
// The fence is renewed by who renews the lease, in the same turn: were it another
// goroutine, and that one hung, the VIP would be silent here while the lease kept it
// from everybody else. Addresses are put on and taken off apart, for each VIP by itself.
type keeper struct {
	fence   fence
	claimer claimer
	now     func() time.Duration // CLOCK_BOOTTIME
	log     *slog.Logger
	// claimed is called in a goroutine of its own after each claim; nil for nobody.
	claimed func(ctx context.Context, v vip.VIP)
	// unfit is told that the VIP cannot be held here and why, and for how long another
	// is to be let; nil for nobody.
	unfit func(v vip.VIP, why string, pause time.Duration)
	// mend puts up a fence that somebody removed; nil if nobody can.
	mend func(ctx context.Context) error

	mu    sync.Mutex
	posts map[string]*post
	wake  chan struct{}
	jobs  sync.WaitGroup
	// mending, and not again before remend.
	mending bool
	remend  time.Duration

	// opening is held while the fence is told anything, so that no release that was
	// under way closes what a new lease has opened.
	opening sync.Mutex
}

func newKeeper(f fence, c claimer, now func() time.Duration, log *slog.Logger) *keeper {
	return &keeper{fence: f, claimer: c, now: now, log: log, posts: map[string]*post{}, wake: make(chan struct{}, 1)}
}

// lease sets how long the VIP may be held; 0 is not at all. When it returns from a 0
// the VIP is silent: the other members may be told. When it hangs, in a kernel that
// does, so does the election, and the lease ends.
func (k *keeper) lease(v vip.VIP, until time.Duration) {
	defer k.rouse()
	k.opening.Lock()
	defer k.opening.Unlock()
	k.mu.Lock()
	p := k.posts[v.Addr.String()]
	if p == nil {
		p = &post{vip: v}
		k.posts[v.Addr.String()] = p
	}
	p.until = until
	if until == 0 {
		p.opened = 0
	}
	k.mu.Unlock()
	if until == 0 {
		k.close(v)
		return
	}
	if until <= k.now() {
		return
	}
	k.open(p, until)
}

// open lets the VIP speak until its lease ends.
func (k *keeper) open(p *post, until time.Duration) {
	err := k.fence.RenewUntil(p.vip.Addrs(), until)
	k.mu.Lock()
	fresh := p.renewed(until, err)
	k.mu.Unlock()
	if fresh {
		k.log.Error("the fence is not renewed, the VIP falls silent", "vip", p.vip.Addr, "error", err)
	}
}

// close silences the VIP. Should the kernel refuse, it ends with the lease.
func (k *keeper) close(v vip.VIP) {
	if err := k.fence.Close(v.Addrs()); err != nil {
		k.log.Error("the fence is not closed at once, it ends with the lease", "vip", v.Addr, "error", err)
	}
}

// run serves until the context ends, then releases what is held.
func (k *keeper) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			k.mu.Lock()
			for _, p := range k.posts {
				p.until = 0
			}
			k.mu.Unlock()
			for k.settle(ctx) {
				<-k.wake // comes when anything is done
			}
			k.jobs.Wait()
			return nil
		case <-k.wake:
			k.settle(ctx)
		}
	}
}

// settle makes the kernel follow the leases, and gives up those that it does not
// follow. It tells whether anything is under way.
func (k *keeper) settle(ctx context.Context) (under bool) {
	var told []func()
	k.mu.Lock()
	now := k.now()
	for _, name := range slices.Sorted(maps.Keys(k.posts)) {
		p := k.posts[name]
		if errors.Is(p.refused, layer2.ErrNotTaken) && k.mend != nil && !k.mending && now >= k.remend {
			k.mending, k.remend = true, now+claimPatience
			k.jobs.Go(func() { k.putUp(ctx) })
		}
		if why, pause := p.hopeless(now); pause > 0 && k.unfit != nil {
			told = append(told, func() { k.unfit(p.vip, why, pause) })
		}
		switch {
		case p.busy:
		case p.wantsClaim(now):
			p.begin(now)
			k.jobs.Go(func() { k.claim(ctx, p) })
		case p.until <= now && p.held:
			p.begin(now)
			k.jobs.Go(func() { k.release(p) })
		}
		under = under || p.busy
	}
	k.mu.Unlock()
	for _, tell := range told {
		tell()
	}
	return under
}

func (k *keeper) claim(ctx context.Context, p *post) {
	defer k.rouse()
	err := k.claimer.Claim(p.vip)
	if err == nil {
		err = k.fence.Ajar(p.vip.Addrs(), true)
	}
	k.mu.Lock()
	fresh, after, pause := p.claimed(k.now(), err)
	k.mu.Unlock()
	switch {
	case fresh:
		k.log.Error("claim failed, it is tried again", "vip", p.vip.Addr, "error", err)
	case after:
		k.log.Info("claimed after all", "vip", p.vip.Addr)
	}
	if pause > 0 && k.unfit != nil {
		k.unfit(p.vip, err.Error(), pause)
	}
	if err == nil && k.claimed != nil {
		go k.claimed(ctx, p.vip)
	}
}

func (k *keeper) release(p *post) {
	defer k.rouse()
	k.opening.Lock()
	k.mu.Lock()
	again := p.until > k.now()
	k.mu.Unlock()
	if !again {
		k.close(p.vip)
	}
	k.opening.Unlock()
	var err error
	if !again {
		err = errors.Join(k.fence.Ajar(p.vip.Addrs(), false), k.claimer.Release(p.vip))
	}
	k.mu.Lock()
	p.busy, p.held, p.again, p.failed = false, again, again, ""
	k.mu.Unlock()
	if err != nil {
		k.log.Error("release failed", "vip", p.vip.Addr, "error", err)
	}
}

// putUp makes the fence anew, and opens it for what is leased.
func (k *keeper) putUp(ctx context.Context) {
	defer k.rouse()
	err := k.mend(ctx)
	k.opening.Lock()
	defer k.opening.Unlock()
	k.mu.Lock()
	k.mending = false
	leased := map[*post]time.Duration{}
	for _, p := range k.posts {
		if p.until > k.now() {
			leased[p] = p.until
		}
	}
	k.mu.Unlock()
	if err != nil {
		k.log.Error("the fence was removed and cannot be put up again", "error", err)
		return
	}
	for p, until := range leased {
		k.open(p, until)
	}
	k.log.Warn("the fence was removed by somebody, and is up again")
}

// withdraw takes the address of a VIP off that is held on: what comes for it waits, and
// what is under way still leaves.
func (k *keeper) withdraw(v vip.VIP) error {
	k.mu.Lock()
	p := k.posts[v.Addr.String()]
	if p == nil || p.busy {
		k.mu.Unlock()
		return fmt.Errorf("withdraw %s: it is just being claimed or released", v.Addr)
	}
	p.begin(k.now())
	p.withdrawn = true
	k.mu.Unlock()
	defer k.rouse()
	err := errors.Join(k.fence.Ajar(v.Addrs(), false), k.claimer.Release(v))
	k.mu.Lock()
	defer k.mu.Unlock()
	p.busy = false
	return err
}

// restore puts the address of a VIP back if it is still held.
func (k *keeper) restore(v vip.VIP) {
	k.mu.Lock()
	if p := k.posts[v.Addr.String()]; p != nil {
		p.again = true
	}
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
	failed := map[string]string{}
	for name, p := range k.posts {
		if why := p.trouble(k.now()); why != "" {
			failed[name] = why
		}
	}
	return failed
}
