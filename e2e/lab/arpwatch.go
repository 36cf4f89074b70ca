package lab

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Utterance is one ARP frame on the outside segment in which a node speaks as the
// owner of a VIP.
type Utterance struct {
	At     time.Time
	VIP    netip.Addr
	Node   int       // 0: a MAC address of no node
	MAC    string    // the sender's hardware address in the ARP packet
	Answer bool      // to the watch's own question; otherwise an announcement or other traffic
	Asked  time.Time // of an answer: when its question was asked
}

// Tenure is a run of utterances of one node with no other's between them.
type Tenure struct {
	Node        int
	First, Last time.Time
	Count       int
}

// Violation is a node speaking for a VIP while another does: between two words of the
// other that are closer together than two changes of holder can be.
type Violation struct {
	VIP    netip.Addr
	Node   int // who spoke
	Other  int // between whose words
	At     time.Time
	Within time.Duration // between the other's two words
}

func (v Violation) String() string {
	return fmt.Sprintf("n%d spoke for %s at %s between two words of n%d, %s apart",
		v.Node, v.VIP, v.At.Format("15:04:05.000"), v.Other, v.Within.Round(10*time.Microsecond))
}

// Settle is less than it takes a VIP to move away and back.
const Settle = 100 * time.Millisecond

// ARPWatch listens on the outside segment, at the router's port, and keeps asking
// who has the VIPs. It asks in the name of a host that does not exist, so that the
// router's own ARP cache learns nothing from the answers: its traffic depends on
// what the gateways announce.
type ARPWatch struct {
	vips   []netip.Addr
	frames *os.File
	quit   chan struct{}
	wg     sync.WaitGroup
	once   sync.Once
	nodes  map[string]int

	mu    sync.Mutex
	said  []Utterance
	asked [1 << 16]time.Time // by the number of the question
	last  uint16
}

// WatchARP begins to watch the lab's VIPs, asking for each every so often; 0 only
// listens.
func (l *Lab) WatchARP(every time.Duration) (*ARPWatch, error) {
	m, err := l.machine(Router)
	if err != nil {
		return nil, err
	}
	w := &ARPWatch{vips: l.Options.VIPs, quit: make(chan struct{}), nodes: map[string]int{}}
	for j := 1; j <= l.Options.Nodes; j++ {
		w.nodes[NodeMAC(j).String()] = j
	}
	if w.frames, err = openFrames(m.NS, "eth0", unix.ETH_P_ARP); err != nil {
		return nil, err
	}
	w.wg.Go(w.listen)
	if every > 0 {
		w.wg.Go(func() { _ = pace(every, w.quit, w.ask) })
	}
	l.onClose(func() error { w.Stop(); return nil })
	return w, nil
}

// Stop ends the watch; what it saw can still be read.
func (w *ARPWatch) Stop() {
	w.once.Do(func() {
		close(w.quit)
		_ = w.frames.SetReadDeadline(time.Now())
		w.wg.Wait()
		_ = w.frames.Close()
	})
}

func (w *ARPWatch) ask(int) {
	for _, vip := range w.vips {
		w.mu.Lock()
		w.last++
		number := w.last
		w.asked[number] = time.Now()
		w.mu.Unlock()
		f := arpFrame{
			to: broadcast, from: askerMAC, op: arpRequest, senderMAC: questionMAC(number), sender: askerAddr,
			targetMAC: make([]byte, 6), target: vip,
		}
		_, _ = w.frames.Write(f.bytes()) // while the interface is down nobody hears it
	}
}

func (w *ARPWatch) listen() {
	readFrames(w.frames, func(at time.Time, frame []byte) {
		f, ok := parseARP(frame)
		if !ok || !slices.Contains(w.vips, f.sender) {
			return
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		u := Utterance{At: at, VIP: f.sender, MAC: f.senderMAC.String(), Node: w.nodes[f.senderMAC.String()]}
		if number, is := questionNumber(f.targetMAC); is && f.op == arpReply {
			u.Answer, u.Asked = true, w.asked[number]
		}
		w.said = append(w.said, u)
	})
}

// Utterances are all frames seen that speak for the VIP, in order of arrival.
func (w *ARPWatch) Utterances(vip netip.Addr) []Utterance {
	w.mu.Lock()
	defer w.mu.Unlock()
	var said []Utterance
	for _, u := range w.said {
		if u.VIP == vip {
			said = append(said, u)
		}
	}
	return said
}

// Owners is who spoke for the VIP, one tenure after another.
func (w *ARPWatch) Owners(vip netip.Addr) []Tenure { return owners(w.Utterances(vip)) }

// Owner is who spoke last; 0 when nobody did within the duration given.
func (w *ARPWatch) Owner(vip netip.Addr, within time.Duration) int {
	tenures := w.Owners(vip)
	if n := len(tenures); n > 0 && time.Since(tenures[n-1].Last) <= within {
		return tenures[n-1].Node
	}
	return 0
}

// Violations are the moments at which two nodes spoke for one VIP.
func (w *ARPWatch) Violations() []Violation {
	var all []Violation
	for _, vip := range w.vips {
		all = append(all, violations(w.Utterances(vip), Settle)...)
	}
	return all
}

// Proven are the moments at which two nodes held one VIP whatever the network did: one
// answered, then the other a question that was asked after this answer was heard, then the
// first again one that was asked after that. Violations go by the order of arrival, which on
// a machine with too much to do is not always that of speaking.
func (w *ARPWatch) Proven() []Violation {
	var all []Violation
	for _, vip := range w.vips {
		all = append(all, proven(w.Utterances(vip), Settle)...)
	}
	return all
}

func proven(said []Utterance, settle time.Duration) []Violation {
	said = slices.DeleteFunc(slices.Clone(said), func(u Utterance) bool { return !u.Answer })
	var found []Violation
	for i, last := range said {
		for j := i - 1; j >= 0 && last.At.Sub(said[j].At) < settle; j-- {
			between := said[j]
			if between.Node == last.Node || !between.At.Before(last.Asked) {
				continue
			}
			if k := slices.IndexFunc(said[:j], func(u Utterance) bool {
				return u.Node == last.Node && u.At.Before(between.Asked) && last.At.Sub(u.At) < settle
			}); k >= 0 {
				found = append(found, Violation{
					VIP: last.VIP, Node: between.Node, Other: last.Node, At: between.At, Within: last.At.Sub(said[k].At),
				})
				break
			}
		}
	}
	return found
}

func owners(said []Utterance) []Tenure {
	var tenures []Tenure
	for _, u := range said {
		if n := len(tenures); n > 0 && tenures[n-1].Node == u.Node {
			tenures[n-1].Last = u.At
			tenures[n-1].Count++
			continue
		}
		tenures = append(tenures, Tenure{Node: u.Node, First: u.At, Last: u.At, Count: 1})
	}
	return tenures
}

func violations(said []Utterance, settle time.Duration) []Violation {
	var found []Violation
	tenures := owners(said)
	for i := 1; i+1 < len(tenures); i++ {
		before, between, after := tenures[i-1], tenures[i], tenures[i+1]
		if within := after.First.Sub(before.Last); before.Node == after.Node && within < settle {
			found = append(found, Violation{
				VIP: said[0].VIP, Node: between.Node, Other: before.Node, At: between.First, Within: within,
			})
		}
	}
	return found
}
