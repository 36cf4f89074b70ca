package layer2

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/vip"
)

// Announcer claims and releases VIPs, and tells the segment while one is claimed.
type Announcer struct {
	host  *Host
	fence *Fence
	log   *slog.Logger

	mu     sync.Mutex
	claims map[netip.Addr]claim // by VIP
}

type claim struct {
	ends []end
	stop context.CancelFunc
	done chan struct{}
}

// NewAnnouncer starts nothing. It announces an address only while the fence is open
// for it, by this process's own renewals.
func NewAnnouncer(h *Host, f *Fence, log *slog.Logger) *Announcer {
	return &Announcer{host: h, fence: f, log: log, claims: map[netip.Addr]claim{}}
}

// end is one address on one interface.
type end struct {
	addr  netip.Addr
	iface string
	index int
	mac   net.HardwareAddr
}

func (a *Announcer) ends(v vip.VIP) ([]end, error) {
	ends := []end{{addr: v.Addr, iface: v.Interface}}
	if v.Via.IsValid() {
		// The inside first: nodes lead all traffic there.
		ends = []end{{addr: v.Via, iface: v.ViaInterface}, ends[0]}
	}
	for i := range ends {
		if !ends[i].addr.Is4() {
			return nil, fmt.Errorf("%s: only IPv4 addresses can be announced yet", ends[i].addr)
		}
		link, err := a.host.links.LinkByName(ends[i].iface)
		if err != nil {
			return nil, fmt.Errorf("find interface %q of %s: %w", ends[i].iface, ends[i].addr, err)
		}
		ends[i].index, ends[i].mac = link.Attrs().Index, link.Attrs().HardwareAddr
	}
	return ends, nil
}

// Claim adds the VIP's addresses and announces them: at once, before it returns, and
// by vip.Schedule until Release. The fence must be open for them. Claiming again
// adds what is missing and announces anew.
func (a *Announcer) Claim(v vip.VIP) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.silence(v)
	ends, err := a.ends(v)
	if err != nil {
		return fmt.Errorf("claim %s: %w", v, err)
	}
	for _, e := range ends {
		if err := a.host.addAddress(e.addr, e.iface, e.index); err != nil {
			return errors.Join(fmt.Errorf("claim %s: %w", v, err), a.remove(v))
		}
	}
	begun := time.Now()
	a.announce(v, ends)
	ctx, stop := context.WithCancel(context.Background())
	c := claim{ends: ends, stop: stop, done: make(chan struct{})}
	a.claims[v.Addr] = c
	go func() {
		defer close(c.done)
		for n := 1; ; n++ {
			timer := time.NewTimer(time.Until(begun.Add(vip.AnnounceAt(n))))
			select {
			case <-ctx.Done():
				timer.Stop()
				return
			case <-timer.C:
				a.announce(v, ends)
			}
		}
	}()
	return nil
}

// Defend announces a VIP out of turn, if it is claimed.
func (a *Announcer) Defend(v vip.VIP) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if c, is := a.claims[v.Addr]; is {
		a.announce(v, c.ends)
	}
}

// announce sends gratuitous ARP as request and as reply: there are neighbours that
// take only the one or the other (RFC 5227, section 3). The fence is asked before: not every
// kernel can guard frames from a packet socket.
func (a *Announcer) announce(v vip.VIP, ends []end) {
	for _, e := range ends {
		if len(e.mac) != 6 {
			continue // no Ethernet, no ARP: such a link has no neighbour to tell
		}
		request := arpFrame(arpRequest, e.mac, e.addr, nil, e.addr)
		reply := arpFrame(arpReply, e.mac, e.addr, broadcast, e.addr)
		for _, frame := range [][]byte{request, reply} {
			err := a.tell(e, frame)
			if errors.Is(err, errOver) {
				a.log.Warn("not announced: the lease is over", "vip", v.Addr, "address", e.addr)
				return
			}
			if err != nil {
				a.log.Warn("announce", "vip", v.Addr, "address", e.addr, "interface", e.iface, "error", err)
			}
		}
	}
}

var errOver = errors.New("the lease is over")

func (a *Announcer) tell(e end, frame []byte) error {
	if !a.fence.Open(e.addr) {
		return errOver
	}
	err := a.host.send(e.index, frame)
	// The guard says so, when this process was stopped in between.
	if errors.Is(err, unix.ENOBUFS) && !a.fence.Open(e.addr) {
		return errOver
	}
	return err
}

// Release stops announcing and removes the addresses, in the reverse order of Claim.
// What is gone already is no error. The fence is closed by the caller: before, so that what is
// under way is dropped, or after, so that it still leaves.
func (a *Announcer) Release(v vip.VIP) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.silence(v)
	if err := a.remove(v); err != nil {
		return fmt.Errorf("release %s: %w", v, err)
	}
	return nil
}

// silence returns when no announcement of the VIP will follow.
func (a *Announcer) silence(v vip.VIP) {
	if c, is := a.claims[v.Addr]; is {
		c.stop()
		<-c.done
		delete(a.claims, v.Addr)
	}
}

// remove takes the VIP's addresses off whatever interface they are on, the outside
// one first.
func (a *Announcer) remove(v vip.VIP) error {
	all, err := a.host.addresses()
	if err != nil {
		return err
	}
	var errs []error
	for _, addr := range v.Addrs() {
		for _, have := range all {
			if have.addr == addr && a.host.ours(have, v.Addrs()) {
				errs = append(errs, a.host.forgetNeighbour(have), a.host.deleteAddress(have))
			}
		}
	}
	return errors.Join(errs...)
}

// Close stops all announcing; addresses stay. A process that ends should Release.
func (a *Announcer) Close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for addr := range a.claims {
		a.silence(vip.VIP{Addr: addr})
	}
}
