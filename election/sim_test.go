package election

import (
	"container/heap"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// world runs a group in true time, which no member sees. It acts as the callers,
// the network, the clocks and the kernels' fences do.
type world struct {
	rand    *rand.Rand
	now     time.Duration // true
	queue   events
	seq     int
	nodes   []*node
	vips    []string
	rules   func(*rules) // takes a rule out
	timing  Timing
	faults  faults
	cut     map[[2]string]bool // from, to
	history []string           // the latest events, for a failure
	broken  string             // the violation, if any
	gains   int
	loyal   bool // no process ends, so that none forgets
	deaf    bool // a caller does not let go when it is told to: what the simulation has to find
	claimed func(vip string, n *node)
	did     func(n *node, r Ready)
	lost    func(from string, to *node, msg Message) bool // drops a message; nil drops none
}

// faults is what may happen; zero is a good network.
type faults struct {
	loss, double float64
	stop         float64 // share of calls after which the process is stopped before it acts on them
	late         float64 // share of messages that are delayed for up to lateBy
	lateBy       time.Duration
}

type event struct {
	at  time.Duration
	seq int
	do  func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].seq < e[j].seq
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	old := *e
	x := old[len(old)-1]
	*e = old[:len(old)-1]
	return x
}

// node is a host: a clock, a kernel that goes on by itself, and a process.
type node struct {
	w    *world
	cfg  Config
	m    *Machine // nil: no process
	life int      // distinguishes timers of one process from those of the next

	base, local time.Duration // the clock showed local when true time was base
	rate        float64

	fence   map[string]time.Duration // VIP → local time when the kernel closes it
	paused  bool
	stuck   []Ready // worked out, not yet carried out when it was stopped
	backlog []Message
	due     time.Duration // true time of the timer that is set
}

func newWorld(seed uint64, replicas int, vips []string, timing Timing) *world {
	w := &world{
		rand: rand.New(rand.NewPCG(seed, 1)), vips: vips, timing: timing,
		cut: map[[2]string]bool{}, rules: func(*rules) {},
	}
	for i := range replicas {
		w.add(fmt.Sprintf("n%d", i+1), replicas)
	}
	return w
}

func (w *world) add(id string, replicas int) *node {
	n := &node{
		w: w, fence: map[string]time.Duration{}, local: time.Duration(w.rand.Int64N(int64(time.Hour))),
		cfg: Config{ID: id, Replicas: replicas, Timing: w.timing, VIPs: w.vips},
	}
	n.slew()
	w.nodes = append(w.nodes, n)
	return n
}

func (w *world) after(d time.Duration, do func()) {
	w.seq++
	heap.Push(&w.queue, event{w.now + d, w.seq, do})
}

// run lets d pass.
func (w *world) run(d time.Duration) {
	end := w.now + d
	for w.broken == "" && len(w.queue) > 0 && w.queue[0].at <= end {
		e := heap.Pop(&w.queue).(event)
		w.now = e.at
		e.do()
	}
	w.now = end
}

func (w *world) logf(format string, args ...any) {
	if len(w.history) > 400 {
		w.history = slices.Clone(w.history[200:])
	}
	w.history = append(w.history, fmt.Sprintf("%12.3fms ", float64(w.now)/1e6)+fmt.Sprintf(format, args...))
}

// upTo is uniform in [0, d].
func (w *world) upTo(d time.Duration) time.Duration {
	return time.Duration(w.rand.Int64N(int64(d) + 1))
}

func (n *node) clock() time.Duration {
	return n.local + time.Duration(float64(n.w.now-n.base)*n.rate)
}

// slew changes the clock's rate within the bound, to its ends as often as not.
func (n *node) slew() {
	local := n.clock()
	drift := n.w.timing.Drift
	n.base, n.local = n.w.now, local
	n.rate = 1 + drift*[]float64{-1, 1, 2*n.w.rand.Float64() - 1}[n.w.rand.IntN(3)]
}

// jump sets the clock on, as a resume may.
func (n *node) jump(d time.Duration) {
	n.w.logf("%s: clock jumps %v", n.cfg.ID, d)
	n.local += d
}

func (n *node) start() {
	if n.m != nil {
		return
	}
	n.life++
	n.cfg.Incarnation = n.w.rand.Uint64() | 1
	n.cfg.Seed = n.w.rand.Uint64()
	m, err := New(n.cfg, n.clock())
	if err != nil {
		panic(err)
	}
	n.w.rules(&m.rules)
	m.voteFrom = n.clock() + m.rules.wait
	n.m, n.paused, n.stuck, n.backlog = m, false, nil, nil
	n.w.logf("%s: starts", n.cfg.ID)
	n.carryOut(m.Tick(n.clock()))
}

// kill ends the process; its kernel goes on unless the power is cut.
func (n *node) kill(power bool) {
	n.w.logf("%s: killed, power cut %v", n.cfg.ID, power)
	n.m, n.life = nil, n.life+1
	if power {
		clear(n.fence)
	}
}

func (n *node) pause() { n.paused = true; n.w.logf("%s: stopped", n.cfg.ID) }

func (n *node) resume() {
	if !n.paused {
		return
	}
	n.paused = false
	n.w.logf("%s: continues", n.cfg.ID)
	stuck, backlog := n.stuck, n.backlog
	n.stuck, n.backlog = nil, nil
	for _, r := range stuck {
		n.carryOut(r)
	}
	if n.m == nil {
		return
	}
	for _, msg := range backlog {
		n.carryOut(n.m.Step(n.clock(), msg))
	}
	n.carryOut(n.m.Tick(n.clock()))
}

// do has the process act, now and then being stopped between deciding and doing.
func (n *node) do(act func(m *Machine, now time.Duration) Ready) {
	if n.m == nil || n.paused {
		return
	}
	r := act(n.m, n.clock())
	if n.w.rand.Float64() < n.w.faults.stop {
		n.pause()
		n.w.after(n.w.upTo(2*n.w.timing.Lease), n.resume)
	}
	n.carryOut(r)
}

func (n *node) carryOut(r Ready) {
	if n.m == nil {
		return
	}
	if n.paused {
		n.stuck = append(n.stuck, r)
		return
	}
	w := n.w
	if w.did != nil {
		w.did(n, r)
	}
	for _, l := range r.Leases {
		if l.Until == 0 {
			w.logf("%s: lets go of %s (term %d)", n.cfg.ID, l.VIP, l.Term)
			if !w.deaf {
				delete(n.fence, l.VIP)
			}
			continue
		}
		if l.Until > n.clock() {
			// The kernel's timeout ends on a jiffy, up to the margin later than asked for.
			n.fence[l.VIP] = l.Until + w.upTo(n.cfg.Timing.Margin*99/100)
			w.logf("%s: holds %s (term %d) for %v", n.cfg.ID, l.VIP, l.Term, l.Until-n.clock())
			w.check(l.VIP)
		}
	}
	for _, t := range r.Transitions {
		w.logf("%s: %s: %q → %q in term %d: %s", n.cfg.ID, t.VIP, t.From, t.To, t.Term, t.Reason)
		if t.To == n.cfg.ID && t.From != t.To {
			w.gains++
			if w.claimed != nil {
				w.claimed(t.VIP, n)
			}
		}
	}
	for _, out := range r.Send {
		for _, to := range w.nodes {
			if to != n && (out.To == "" || out.To == to.cfg.ID) {
				w.send(n.cfg.ID, to, out.Message)
			}
		}
	}
	n.arm()
}

// arm sets the timer for Next, which a process on a busy host meets late.
func (n *node) arm() {
	if n.m == nil || n.paused {
		return
	}
	d := time.Duration(float64(n.m.Next()-n.clock())/n.rate) + n.w.upTo(100*time.Microsecond) + 1
	n.due = n.w.now + max(d, 0)
	life, due := n.life, n.due
	n.w.after(due-n.w.now, func() {
		if n.life == life && n.due == due {
			n.do((*Machine).Tick)
		}
	})
}

func (w *world) send(from string, to *node, msg Message) {
	if w.cut[[2]string{from, to.cfg.ID}] {
		return
	}
	copies := 1
	if w.rand.Float64() < w.faults.double {
		copies = 2
	}
	for range copies {
		if w.rand.Float64() < w.faults.loss {
			continue
		}
		delay := 50*time.Microsecond + w.upTo(300*time.Microsecond)
		if w.rand.Float64() < w.faults.late {
			delay += w.upTo(w.faults.lateBy)
		}
		if w.lost != nil && w.lost(from, to, msg) {
			continue
		}
		w.after(delay, func() { to.receive(msg) })
	}
}

func (n *node) receive(msg Message) {
	if n.m != nil && n.paused {
		if len(n.backlog) < 50 { // as much as the socket holds
			n.backlog = append(n.backlog, msg)
		}
		return
	}
	n.do(func(m *Machine, now time.Duration) Ready { return m.Step(now, msg) })
}

// holders are the nodes whose kernel acts for the VIP at this true instant.
func (w *world) holders(vip string) []*node {
	var holders []*node
	for _, n := range w.nodes {
		if until, ok := n.fence[vip]; ok && n.clock() < until {
			holders = append(holders, n)
		}
	}
	return holders
}

// check is the invariant. A second holder can only appear when one is added.
func (w *world) check(vip string) {
	if holders := w.holders(vip); len(holders) > 1 {
		w.broken = fmt.Sprintf("%s is held by %s and %s at once", vip, holders[0].cfg.ID, holders[1].cfg.ID)
	}
}

func (w *world) report() string {
	var b strings.Builder
	for _, line := range w.history {
		fmt.Fprintln(&b, line)
	}
	for _, n := range w.nodes {
		if n.m != nil {
			fmt.Fprintf(&b, "%s: %+v problems %q fence %v\n", n.cfg.ID, n.m.Status(), n.m.Problems(), slices.Sorted(maps.Keys(n.fence)))
		}
	}
	return b.String()
}
