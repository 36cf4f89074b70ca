package flows_test

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/sallyport/sallyport/flows"
)

var (
	seedFlag  = flag.Uint64("flows.seed", 0, "replay this seed only")
	seedCount = flag.Uint64("flows.seeds", 4000, "how many seeds to try")
)

const (
	simMembers = 3
	simVIPs    = 2
	simKeys    = 12 // few, so that a key is used again all the time
	simSteps   = 400
	simLimit   = 600 // bytes of batches: standbys that lag are cut off often
)

// A kernel is a member's table of one VIP.
type kernel map[flows.Key]flows.Flow

// seat is one member's part in one VIP.
type seat struct {
	kernel kernel
	log    *flows.Log // while it holds
}

// pipe is one stream: what is under way in either direction is a queue.
type pipe struct {
	vip, from, to int
	cursor        *flows.Cursor
	standby       *flows.Standby
	decoder       flows.Decoder
	down, up      [][]byte
	snapshot      []flows.Message // what is left to send of one
}

type sim struct {
	t       *testing.T
	r       *rand.Rand
	now     time.Duration
	seats   [simVIPs][simMembers]*seat
	holder  [simVIPs]int // -1: nobody
	term    [simVIPs]uint64
	pipes   []*pipe
	zombies []*pipe // streams of earlier holders that still deliver
	stale   int     // messages of those that were refused
	cuts    int     // standbys cut to a snapshot
	trace   []string
}

func (s *sim) note(format string, args ...any) {
	s.trace = append(s.trace, fmt.Sprintf(format, args...))
}

func simKey(n int) flows.Key {
	return flows.Key{Src: netip.AddrFrom4([4]byte{10, 244, 1, byte(n)}), Dst: netip.AddrFrom4([4]byte{203, 0, 113, 5}),
		SrcPort: uint16(1000 + n), DstPort: 443, Protocol: 6}
}

// event happens in the holder's kernel.
func (s *sim) event(vip int) {
	if s.holder[vip] < 0 {
		return
	}
	seat := s.seats[vip][s.holder[vip]]
	key := simKey(s.r.IntN(simKeys))
	f, there := seat.kernel[key]
	switch {
	case !there:
		f = flows.Flow{Key: key, Port: uint16(s.r.IntN(1 << 16)), State: 3}
		seat.kernel[key] = f
		seat.log.Add(s.now, flows.Change{Op: flows.Put, Flow: f})
	case s.r.IntN(3) == 0:
		f.State++
		seat.kernel[key] = f
		seat.log.Add(s.now, flows.Change{Op: flows.Put, Flow: f})
	default:
		delete(seat.kernel, key)
		seat.log.Add(s.now, flows.Change{Op: flows.Delete, Flow: f})
		if s.r.IntN(2) == 0 { // born again at once, translated otherwise
			f.Port, f.State = uint16(s.r.IntN(1<<16)), 3
			seat.kernel[key] = f
			seat.log.Add(s.now, flows.Change{Op: flows.Put, Flow: f})
		}
	}
}

// connect makes a stream for a standby that has none.
func (s *sim) connect(vip, member int) {
	holder := s.holder[vip]
	if holder < 0 || holder == member || s.pipe(vip, member) != nil {
		return
	}
	s.note("m%d follows m%d for vip %d", member, holder, vip)
	s.pipes = append(s.pipes, &pipe{
		vip: vip, from: holder, to: member,
		cursor: s.seats[vip][holder].log.Follow(), standby: flows.NewStandby(s.term[vip]),
	})
}

func (s *sim) pipe(vip, member int) *pipe {
	for _, p := range s.pipes {
		if p.vip == vip && p.to == member {
			return p
		}
	}
	return nil
}

// cut ends streams; what was under way may still arrive when a holder is gone.
func (s *sim) cut(which func(*pipe) bool) {
	var left []*pipe
	for _, p := range s.pipes {
		if !which(p) {
			left = append(left, p)
			continue
		}
		p.cursor.Close()
		s.note("stream m%d to m%d for vip %d is cut, %d under way", p.from, p.to, p.vip, len(p.down))
		s.zombies = append(s.zombies, p)
	}
	s.pipes = left
}

// send puts one message on its way.
func (s *sim) send(p *pipe) {
	if len(p.snapshot) == 0 && p.cursor.Lost() {
		s.cuts++
		own := s.seats[p.vip][p.from].kernel
		p.snapshot = []flows.Message{p.cursor.Rewind()}
		var part []flows.Change
		for _, n := range s.r.Perm(simKeys) {
			if f, there := own[simKey(n)]; there {
				part = append(part, flows.Change{Op: flows.Put, Flow: f})
			}
			if len(part) == 3 {
				p.snapshot = append(p.snapshot, flows.Message{Kind: flows.Snapshot, Term: p.snapshot[0].Term, Changes: part})
				part = nil
			}
		}
		p.snapshot = append(p.snapshot, flows.Message{Kind: flows.Snapshot, Term: p.snapshot[0].Term, Changes: part}, p.cursor.End())
	}
	if len(p.snapshot) > 0 {
		p.down = append(p.down, flows.Encode(p.snapshot[0]))
		p.snapshot = p.snapshot[1:]
		return
	}
	if b, ok := p.cursor.Next(); ok {
		p.down = append(p.down, b.Frame)
	}
}

// deliver brings one message to the standby's kernel.
func (s *sim) deliver(p *pipe) error {
	if len(p.down) == 0 {
		return nil
	}
	m, err := p.decoder.Decode(p.down[0])
	p.down = p.down[1:]
	if err != nil {
		return err
	}
	p.standby.Observe(s.term[p.vip]) // what the member's own election knows
	own := s.seats[p.vip][p.to].kernel
	changes, err := p.standby.Step(m, func() ([]flows.Flow, error) {
		var all []flows.Flow
		for _, f := range own {
			all = append(all, f)
		}
		return all, nil
	})
	if err != nil {
		return err
	}
	for _, c := range changes {
		old, there := own[c.Flow.Key]
		switch {
		case c.Op == flows.Delete:
			delete(own, c.Flow.Key)
		case c.Op == flows.Put && there: // a kernel cannot change a translation
			c.Flow.Port = old.Port
			own[c.Flow.Key] = c.Flow
		default:
			own[c.Flow.Key] = c.Flow
		}
	}
	p.up = append(p.up, flows.Encode(p.standby.Answer(m)))
	return nil
}

func (s *sim) hear(p *pipe) {
	if len(p.up) == 0 {
		return
	}
	m, err := flows.Decode(p.up[0])
	p.up = p.up[1:]
	switch {
	case err != nil:
		s.t.Fatal(err)
	case m.Kind == flows.End:
		p.cursor.Whole(m.Seq)
	case m.Kind == flows.Ack:
		p.cursor.Ack(m.Seq)
	}
}

// takeover gives a VIP to a member, in a new term.
func (s *sim) takeover(vip, member int) {
	s.cut(func(p *pipe) bool { return p.vip == vip })
	for _, seat := range s.seats[vip] {
		seat.log = nil
	}
	s.term[vip]++
	s.holder[vip] = member
	if member >= 0 {
		s.seats[vip][member].log = flows.NewLog(s.term[vip], simLimit, s.now)
	}
	s.note("m%d takes vip %d in term %d", member, vip, s.term[vip])
}

func (s *sim) step() {
	s.now += time.Millisecond
	vip, member := s.r.IntN(simVIPs), s.r.IntN(simMembers)
	switch n := s.r.IntN(100); {
	case n < 35:
		s.event(vip)
	case n < 45:
		if h := s.holder[vip]; h >= 0 {
			s.seats[vip][h].log.Seal()
		}
	case n < 50:
		s.connect(vip, member)
	case n < 85 && len(s.pipes) > 0: // any stream, in any order between VIPs
		p := s.pipes[s.r.IntN(len(s.pipes))]
		switch s.r.IntN(5) {
		case 0, 1:
			s.send(p)
		case 2, 3:
			if err := s.deliver(p); err != nil {
				s.t.Fatalf("an unbroken stream: %v", err)
			}
		default:
			s.hear(p)
		}
	case n < 88:
		s.cut(func(p *pipe) bool { return p.vip == vip && p.to == member })
	case n < 90: // a reboot: its kernel is empty, what it held is another's
		for v := range simVIPs {
			if s.holder[v] == member {
				s.takeover(v, (member+1)%simMembers)
			}
			s.cut(func(p *pipe) bool { return p.vip == v && p.to == member })
			s.seats[v][member].kernel = kernel{}
		}
		s.note("m%d reboots", member)
	case n < 92:
		s.takeover(vip, s.r.IntN(simMembers+1)-1)
	case n < 94: // the listener missed events
		if h := s.holder[vip]; h >= 0 {
			s.seats[vip][h].log.Reset()
		}
	case len(s.zombies) > 0: // late words of a stream that is over
		p := s.zombies[s.r.IntN(len(s.zombies))]
		had := maps.Clone(s.seats[p.vip][p.to].kernel)
		pending := len(p.down) > 0
		p.standby.Observe(s.term[p.vip])
		old := pending && s.termOf(p.down[0]) < s.term[p.vip]
		if !old {
			return // the same holder's: the program hung up, nothing is read any more
		}
		if err := s.deliver(p); err == nil || !maps.Equal(had, s.seats[p.vip][p.to].kernel) {
			s.t.Fatalf("a late word of m%d about vip %d was taken: %v", p.from, p.vip, err)
		}
		s.stale++
	}
}

func (s *sim) termOf(frame []byte) uint64 {
	m, err := flows.Decode(frame)
	if err != nil {
		s.t.Fatal(err)
	}
	return m.Term
}

// settle lets everything arrive.
func (s *sim) settle() {
	for vip := range simVIPs {
		if s.holder[vip] < 0 {
			s.takeover(vip, s.r.IntN(simMembers))
		}
		for member := range simMembers {
			s.connect(vip, member)
		}
		s.seats[vip][s.holder[vip]].log.Seal()
	}
	for _, p := range s.pipes {
		for !p.cursor.CaughtUp() {
			s.send(p)
			if err := s.deliver(p); err != nil {
				s.t.Fatal(err)
			}
			s.hear(p)
		}
	}
}

// TestStandbysEndEqual: whatever was lost, restarted or taken over, once everything
// has arrived every standby has what the holder has, and nothing that ended.
func TestStandbysEndEqual(t *testing.T) {
	first, last := uint64(1), *seedCount
	if *seedFlag != 0 {
		first, last = *seedFlag, *seedFlag
	}
	var stale, cuts int
	for seed := first; seed <= last; seed++ {
		s := &sim{t: t, r: rand.New(rand.NewPCG(seed, 7))}
		for vip := range simVIPs {
			for m := range simMembers {
				s.seats[vip][m] = &seat{kernel: kernel{}}
			}
			s.takeover(vip, vip)
		}
		ok := t.Run(fmt.Sprint(seed), func(t *testing.T) {
			s.t = t
			defer func() {
				if t.Failed() {
					t.Logf("go test -run TestStandbysEndEqual ./flows -flows.seed %d", seed)
					for _, line := range s.trace[max(0, len(s.trace)-30):] {
						t.Log(line)
					}
				}
			}()
			for range simSteps {
				s.step()
			}
			s.settle()
			for vip := range simVIPs {
				want := s.seats[vip][s.holder[vip]].kernel
				for m, seat := range s.seats[vip] {
					if !maps.Equal(seat.kernel, want) {
						t.Errorf("vip %d: m%d has %v, its holder m%d %v", vip, m, seat.kernel, s.holder[vip], want)
					}
				}
			}
			for _, p := range s.pipes {
				if lag := p.cursor.Lag(s.now); lag != 0 {
					t.Errorf("the lag of m%d is %v with everything there", p.to, lag)
				}
			}
		})
		stale, cuts = stale+s.stale, cuts+s.cuts
		if !ok {
			return
		}
	}
	if *seedFlag == 0 && (stale == 0 || cuts == 0) {
		t.Errorf("%d late words and %d snapshots: the simulation does not try what it is for", stale, cuts)
	}
}
