package lab

import (
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// firstRenewal is the lowest ARP operation of the frames by which a gateway keeps its fence
// open; see vip/layer2.
const firstRenewal = 257

// Renewals hears on a node's lo how the gateway there renews its fence.
type Renewals struct {
	frames *os.File
	done   sync.WaitGroup
	once   sync.Once

	mu   sync.Mutex
	last map[netip.Addr]time.Time
}

// WatchRenewals begins to listen on node j.
func (l *Lab) WatchRenewals(j int) (*Renewals, error) {
	m, err := l.machine(NodeName(j))
	if err != nil {
		return nil, err
	}
	r := &Renewals{last: map[netip.Addr]time.Time{}}
	if r.frames, err = openFrames(m.NS, "lo", unix.ETH_P_ARP); err != nil {
		return nil, err
	}
	r.done.Go(func() {
		readFrames(r.frames, func(at time.Time, frame []byte) {
			if f, ok := parseARP(frame); ok && f.op >= firstRenewal {
				r.mu.Lock()
				r.last[f.sender] = at
				r.mu.Unlock()
			}
		})
	})
	l.onClose(func() error { r.Stop(); return nil })
	return r, nil
}

// Stop ends the listening.
func (r *Renewals) Stop() {
	r.once.Do(func() {
		_ = r.frames.SetReadDeadline(time.Now())
		r.done.Wait()
		_ = r.frames.Close()
	})
}

// Last is when the fence was renewed last; the zero time: not since the watch began.
func (r *Renewals) Last(vip netip.Addr) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last[vip]
}
