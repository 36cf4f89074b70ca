package replica

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sallyport/sallyport/election"
	"github.com/sallyport/sallyport/election/gossip"
	"github.com/sallyport/sallyport/election/priority"
	"github.com/sallyport/sallyport/gateway/host"
	"github.com/sallyport/sallyport/vip"
)

const (
	// offered is how often the others are asked whether they would hold a VIP.
	offered = 20 * time.Millisecond
	// nearly is how far behind the heir may be when packets begin to wait for it.
	nearly = 100 * time.Millisecond
	// prepared is how long an heir may take to catch up before packets wait.
	prepared = 500 * time.Millisecond
	// paused is how long packets wait for the heir to catch up at most, before the VIP is taken
	// back. What waited until then is lost: it is queued for a neighbour, which this host is not to
	// itself. It must leave an election room in the 3 s after which the kernel gives the queue up (three
	// probes, retrans_time apart: neigh_timer_handler, net/core/neighbour.c).
	paused = 2 * time.Second
	// settled is for how long no packet comes here when the segment has moved, and
	// settling how long that may take: as long as the VIP is announced often.
	settled  = 300 * time.Millisecond
	settling = 3 * time.Second
)

// errAlone is a VIP that nobody else could hold.
var errAlone = errors.New("no other gateway is heard")

// handovers are the VIPs that are being handed over.
type handovers struct {
	mu    sync.Mutex
	under map[netip.Addr]bool
	// lingering are those that went, for which packets may still come here.
	lingering sync.WaitGroup
}

func (h *handovers) begin(addr netip.Addr) (end func(), ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.under[addr] {
		return nil, false
	}
	if h.under == nil {
		h.under = map[netip.Addr]bool{}
	}
	h.under[addr] = true
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.under, addr)
	}, true
}

// HandOver gives a VIP that is held here to another gateway, named by its own name or
// its node's, or to any that is fit, and returns when it holds it.
//
// Until the heir has all connections but the latest, nothing changes. Then the address
// is taken off, and packets wait at the relay; the heir gets the rest of the connections;
// the fence closes; the heir is elected, and announces itself, and has the packets.
func (r *Replica) HandOver(ctx context.Context, addr netip.Addr, to string) (host.Handover, error) {
	done := host.Handover{VIP: addr, From: r.cfg.Gossip.Name}
	fail := func(err error) (host.Handover, error) { return done, fmt.Errorf("hand %s over: %w", addr, err) }
	v, known := r.electorate.vips[addr.String()]
	if !known {
		return fail(fmt.Errorf("it is none of this gateway's VIPs (%v)", vip.Addrs(r.cfg.VIPs)))
	}
	if holder := r.electorate.state(addr).Holder; holder != r.cfg.Gossip.Name {
		if holder == "" {
			return fail(errors.New("nobody holds it now"))
		}
		return fail(fmt.Errorf("%s holds it: ask there", holder))
	}
	to, err := r.named(to)
	if err != nil {
		return fail(err)
	}
	end, ok := r.handovers.begin(addr)
	if !ok {
		return fail(errors.New("it is being handed over already"))
	}
	defer end()
	ctx, cancel := context.WithTimeout(ctx, r.cfg.HandoverTimeout)
	defer cancel()
	if err := r.putUpRelay(ctx); err != nil {
		r.log.Warn("some packets will be lost while the VIP moves", "vip", addr, "error", err)
	} else {
		r.handovers.lingering.Add(1)
		defer func() { go r.linger() }()
	}
	for {
		heir, err := r.heir(ctx, v, to)
		if err != nil {
			return fail(err)
		}
		began := time.Now()
		err = r.pass(ctx, v, heir)
		if err == nil {
			done.To, err = r.electorate.awaitHolder(ctx, addr)
			done.Milliseconds = float64(time.Since(began).Microseconds()) / 1000
			if err != nil {
				return fail(err)
			}
			r.log.Info("VIP handed over", "vip", addr, "to", done.To, "took_ms", done.Milliseconds)
			return done, nil
		}
		r.log.Warn("the VIP is not handed over yet", "vip", addr, "to", heir, "error", err)
		if ctx.Err() != nil {
			return fail(err)
		}
	}
}

// putUpRelay starts a program, which must not be put before the packets that are on
// their way meanwhile.
func (r *Replica) putUpRelay(ctx context.Context) (err error) {
	priority.Ordinary(func() { err = r.relay.Up(ctx, r.others()) })
	return err
}

// named finds the gateway that is called so or runs on the node of that name.
func (r *Replica) named(to string) (string, error) {
	if to == "" {
		return "", nil
	}
	var at []netip.Addr
	snap, _ := r.view.Snapshot()
	for _, n := range snap.Nodes {
		if n.Name == to {
			at = n.Addrs
		}
	}
	var names []string
	for _, m := range r.gossip.Members() {
		switch {
		case m.Name == to || slices.Contains(at, m.Addr.Addr()):
			if m.Self {
				return "", fmt.Errorf("%s holds it already", to)
			}
			return m.Name, nil
		case m.Name != "" && !m.Self:
			names = append(names, m.Name)
		}
	}
	return "", fmt.Errorf("no gateway is called %s or runs on a node of that name: there are %s", to, strings.Join(names, ", "))
}

// others are all addresses of the nodes of the other gateways.
func (r *Replica) others() []netip.Addr {
	var addrs []netip.Addr
	snap, _ := r.view.Snapshot()
	for _, m := range r.gossip.Members() {
		if m.Self {
			continue
		}
		addrs = append(addrs, m.Addr.Addr())
		for _, n := range snap.Nodes {
			if slices.Contains(n.Addrs, m.Addr.Addr()) {
				addrs = append(addrs, n.Addrs...)
			}
		}
	}
	return addrs
}

// heir waits for a gateway that would take the VIP, and has its connections.
func (r *Replica) heir(ctx context.Context, v vip.VIP, to string) (string, error) {
	for {
		r.electorate.offer(v.Addr)
		select {
		case <-ctx.Done():
		case <-time.After(offered):
		}
		s := r.electorate.state(v.Addr)
		if s.Role != election.Holder {
			return "", errors.New("it is not held here any more")
		}
		if !slices.ContainsFunc(r.gossip.Members(), func(m gossip.Member) bool { return m.Alive && !m.Self }) {
			return "", errAlone
		}
		var why []string
		for _, name := range s.Voters {
			if name == r.cfg.Gossip.Name || to != "" && name != to {
				continue
			}
			switch lack := r.mirror.lack(v.Addr, name); {
			case !slices.Contains(s.Willing, name):
				why = append(why, name+" would not hold it: it is starting or stopping, or its link is down")
			case lack != "":
				why = append(why, name+" "+lack)
			default:
				return name, nil
			}
		}
		if why == nil {
			why = []string{"no gateway that has a vote is heard"}
		}
		if ctx.Err() != nil {
			return "", fmt.Errorf("no gateway was fit within %v: %s", r.cfg.HandoverTimeout, strings.Join(why, "; "))
		}
	}
}

// pass is what happens while packets wait, and the moment before. When it fails the VIP is
// held as before, or lost meanwhile.
func (r *Replica) pass(ctx context.Context, v vip.VIP, heir string) error {
	// What the heir lags behind by now need not be waited for by packets.
	before, cancel := context.WithTimeout(ctx, prepared)
	defer cancel()
	if err := r.mirror.finish(before, v.Addr, heir); err != nil {
		return err
	}
	ctx, cancel = context.WithTimeout(ctx, paused)
	defer cancel()
	r.electorate.offer(v.Addr) // what was said before may be too long ago by the time that it counts
	err := r.keeper.withdraw(v)
	if err == nil {
		err = r.mirror.finish(ctx, v.Addr, heir)
	}
	if err == nil {
		err = r.electorate.handOver(ctx, v.Addr, heir)
	}
	if err != nil {
		r.keeper.restore(v)
	}
	return err
}

// linger keeps the relay until the segment has moved.
func (r *Replica) linger() {
	defer r.handovers.lingering.Done()
	tick := time.NewTicker(settled)
	defer tick.Stop()
	begun, last := time.Now(), ^uint64(0)
	for range tick.C {
		passed, err := r.relay.Passed()
		if err != nil || passed == last || time.Since(begun) > settling {
			break
		}
		last = passed
	}
	if err := r.relay.Down(); err != nil {
		r.log.Warn("the relay stays until the next start", "error", err)
	}
}

// leave hands over all that is held, and waits until nothing comes here any more. What
// nobody takes in time is released by who called.
func (r *Replica) leave(ctx context.Context) {
	var all sync.WaitGroup
	for _, s := range r.electorate.states() {
		addr := r.electorate.vips[s.VIP].Addr
		if s.Role != election.Holder {
			r.electorate.bar(addr, "stopping")
			continue
		}
		all.Go(func() {
			if _, err := r.HandOver(ctx, addr, ""); err != nil {
				r.log.Warn("no successor, the VIP is released", "vip", addr, "error", err)
			}
			r.electorate.bar(addr, "stopping")
		})
	}
	all.Wait()
	r.handovers.lingering.Wait()
}
