package lab

import (
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Packet is one that a node sent to the outside segment with a VIP as its source.
type Packet struct {
	At   time.Time
	VIP  netip.Addr
	Node int
}

// SourceWatch hears, at the router's port, who sends as a VIP.
type SourceWatch struct {
	frames *os.File
	done   sync.WaitGroup
	once   sync.Once

	mu   sync.Mutex
	sent []Packet
}

// WatchSource begins to listen for packets from the lab's VIPs.
func (l *Lab) WatchSource() (*SourceWatch, error) {
	m, err := l.machine(Router)
	if err != nil {
		return nil, err
	}
	nodes := map[string]int{}
	for j := 1; j <= l.Options.Nodes; j++ {
		nodes[NodeMAC(j).String()] = j
	}
	w := &SourceWatch{}
	if w.frames, err = openFrames(m.NS, "eth0", unix.ETH_P_IP); err != nil {
		return nil, err
	}
	w.done.Go(func() {
		readFrames(w.frames, func(at time.Time, frame []byte) {
			if len(frame) < 34 {
				return
			}
			source := netip.AddrFrom4([4]byte(frame[26:30]))
			if node := nodes[net.HardwareAddr(frame[6:12]).String()]; node != 0 && slices.Contains(l.Options.VIPs, source) {
				w.mu.Lock()
				w.sent = append(w.sent, Packet{At: at, VIP: source, Node: node})
				w.mu.Unlock()
			}
		})
	})
	l.onClose(func() error { w.Stop(); return nil })
	return w, nil
}

// Stop ends the watch; what it saw can still be read.
func (w *SourceWatch) Stop() {
	w.once.Do(func() {
		_ = w.frames.SetReadDeadline(time.Now())
		w.done.Wait()
		_ = w.frames.Close()
	})
}

// Since are the packets of node j after a moment.
func (w *SourceWatch) Since(j int, after time.Time) (sent []Packet) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.sent {
		if p.Node == j && p.At.After(after) {
			sent = append(sent, p)
		}
	}
	return sent
}
