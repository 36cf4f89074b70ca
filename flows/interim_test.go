package flows_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/sallyport/sallyport/flows"
)

// interim is the story of a holder (0) that is away while another (1) holds and a third
// follows, and is elected again without having heard of it.
type interim struct {
	*sim
	real  kernel // as pods and partner have them
	ports uint16
}

func (i *interim) happen(member int, l *flows.Log) {
	own, key := i.seats[0][member].kernel, simKey(i.r.IntN(simKeys))
	f, lives := i.real[key]
	_, there := own[key]
	switch {
	case lives && !there: // tracking picks it up
	case lives && i.r.IntN(2) == 0:
		delete(own, key)
		delete(i.real, key)
		l.Add(i.now, flows.Change{Op: flows.Delete, Flow: f})
		return
	case lives:
		f.State++
	default:
		if there {
			return // it has ended elsewhere, and a port is not used again so soon
		}
		i.ports++
		f = flows.Flow{Key: key, Port: i.ports, State: 3}
	}
	own[key], i.real[key] = f, f
	l.Add(i.now, flows.Change{Op: flows.Put, Flow: f})
}

// finish has a standby take all that there is.
func (i *interim) finish(p *pipe) {
	for !p.cursor.CaughtUp() {
		i.send(p)
		if err := i.deliver(p); err != nil {
			i.t.Fatal(err)
		}
		i.hear(p)
	}
}

// adopt has the holder take the standby's table, if it wants it, with things happening
// meanwhile.
func (i *interim) adopt(l *flows.Log, standby int, have flows.Position, whole, busy bool) (asked bool) {
	if !l.Lacks(have, i.now) {
		return false
	}
	holder := i.seats[0][0].kernel
	a := l.Adopt(have, flowsOf(holder))
	var all []flows.Message
	for _, f := range flowsOf(i.seats[0][standby].kernel) {
		all = append(all, flows.Message{Kind: flows.Snapshot, Changes: []flows.Change{{Op: flows.Put, Flow: f}}})
	}
	end := flows.Message{Kind: flows.Merge}
	if whole {
		end.Kind = flows.End
	}
	var owed []flows.Change // what the kernel has yet to tell
	flush := func() {
		for _, c := range owed {
			l.Add(i.now, c)
		}
		owed = nil
	}
	changed := false
	for _, m := range append(all, end) {
		if busy && i.r.IntN(3) == 0 {
			flush() // events are in order
			i.happen(0, l)
		}
		changes, _, err := a.Step(i.now, m)
		if err != nil {
			i.t.Fatal(err)
		}
		for _, c := range changes {
			changed = true
			if c.Op != flows.Put {
				owed = append(owed, flows.Change{Op: flows.Delete, Flow: c.Flow})
			}
			if c.Op == flows.Delete {
				delete(holder, c.Flow.Key)
			} else {
				holder[c.Flow.Key] = c.Flow // and nothing tells of it
			}
		}
	}
	flush()
	if changed {
		l.Reset()
	}
	a.Done()
	return true
}

func flowsOf(k kernel) (all []flows.Flow) {
	for n := range simKeys {
		if f, is := k[simKey(n)]; is {
			all = append(all, f)
		}
	}
	return all
}

// TestWhatBeganInAnInterimIsKept: once everything has arrived the kernels have the
// connections that there are, where the one between is heard; where it is dead, what the
// third one had of them.
func TestWhatBeganInAnInterimIsKept(t *testing.T) {
	for seed := uint64(1); seed <= 2000; seed++ {
		ok := t.Run(fmt.Sprint(seed), func(t *testing.T) {
			i := &interim{sim: &sim{t: t, r: rand.New(rand.NewPCG(seed, 11))}, real: kernel{}}
			for m := range simMembers {
				i.seats[0][m] = &seat{kernel: kernel{}}
			}
			between := func(l *flows.Log, from, to int) *pipe {
				return &pipe{from: from, to: to, cursor: l.Follow(), standby: flows.NewStandby(l.Term)}
			}
			first := flows.NewLog(1, simLimit, i.now)
			i.term[0] = 1
			one, two := between(first, 0, 1), between(first, 0, 2)
			for range 20 {
				i.happen(0, first)
				first.Seal()
			}
			i.finish(one)
			i.finish(two)

			// The first one is away.
			one.cursor.Close()
			two.cursor.Close()
			i.term[0] = 2
			second := flows.NewLog(2, simLimit, i.now)
			second.Have = one.standby.Position()
			if second.Lacks(first.Position(), i.now) || second.Lacks(two.standby.Position(), i.now) {
				t.Fatal("who was in step is asked for nothing")
			}
			two = between(second, 1, 2)
			i.finish(two)
			for range 15 {
				i.happen(1, second)
				second.Seal()
				if i.r.IntN(2) == 0 {
					i.finish(two)
				}
			}

			// It is elected again.
			two.cursor.Close()
			alive := i.r.IntN(2) == 0
			if !alive {
				i.real = maps.Clone(i.seats[0][2].kernel) // what nobody was told of is lost
			}
			i.now += time.Second
			i.term[0] = 3
			first.Raise(3, i.now)
			order := []int{2, 1}
			if i.r.IntN(2) == 0 {
				order = []int{1, 2}
			}
			asked := 0
			var pipes []*pipe
			for _, m := range order {
				have, there := two.standby.Position(), true
				if m == 1 {
					have, there = second.Position(), alive
				}
				if !there {
					continue
				}
				if i.adopt(first, m, have, true, i.r.IntN(2) == 0) {
					asked++
				}
				pipes = append(pipes, between(first, 0, m))
				if i.r.IntN(2) == 0 {
					first.Seal()
					i.finish(pipes[len(pipes)-1]) // or it follows when the next one comes
				}
			}
			if asked == 0 {
				t.Fatal("nobody is asked for what began meanwhile")
			}
			first.Seal()
			for _, p := range pipes {
				i.finish(p)
			}
			for m, seat := range i.seats[0] {
				if (m != 1 || alive) && !maps.Equal(keysOf(seat.kernel), keysOf(i.real)) {
					t.Errorf("m%d has %v, want %v (the one between is alive: %t)", m, seat.kernel, i.real, alive)
				}
			}
		})
		if !ok {
			return
		}
	}
}

// keysOf with the translations, the states being of when somebody heard.
func keysOf(k kernel) map[flows.Key]uint16 {
	keys := map[flows.Key]uint16{}
	for key, f := range k {
		keys[key] = f.Port
	}
	return keys
}

// Of whom a holder asks the table, that followed the holder of term 4 up to batch 9 and
// held itself in term 5 before this one, 7.
func TestWhomAHolderAsks(t *testing.T) {
	const soon, late = time.Second, time.Minute
	for _, c := range []struct {
		name    string
		standby flows.Position
		soon    bool
		late    bool
	}{
		{"had less of it", flows.Position{Term: 4, Seq: 8}, false, false},
		{"had as much", flows.Position{Term: 4, Seq: 9}, false, false},
		{"had its tail", flows.Position{Term: 4, Seq: 10}, true, false},
		{"followed this one then", flows.Position{Term: 5, Seq: 90}, false, false},
		{"followed another since", flows.Position{Term: 6, Seq: 1}, true, true},
		{"follows this one", flows.Position{Term: 7, Seq: 1}, false, false},
		{"has only started", flows.Position{}, false, false},
	} {
		for now, want := range map[time.Duration]bool{soon: c.soon, late: c.late} {
			l := flows.NewLog(5, simLimit, 0)
			l.Have = flows.Position{Term: 4, Seq: 9}
			l.Raise(7, 0)
			if got := l.Lacks(c.standby, now); got != want {
				t.Errorf("who %s is asked after %v: %t, want %t", c.name, now, got, want)
			}
		}
	}
	if fresh := flows.NewLog(1, simLimit, 0); !fresh.Lacks(flows.Position{}, soon) || fresh.Lacks(flows.Position{}, late) {
		t.Error("after a start of all, whoever is elected asks everybody, for a while")
	}
}

// What was never sent to anybody is more than others have.
func TestWhatNobodyWasToldOfIsCounted(t *testing.T) {
	l := flows.NewLog(1, simLimit, 0)
	c := l.Follow()
	c.Rewind()
	l.Add(0, put(1))
	l.Seal()
	before := l.Position()
	l.Add(0, put(2))
	unsealed := l.Position()
	c.Close()
	dropped := l.Position()
	l.Add(0, put(3))
	unfollowed := l.Position()
	if !unsealed.After(before) || unsealed.After(dropped) || !unfollowed.After(dropped) {
		t.Errorf("positions are %v, %v, %v, %v", before, unsealed, dropped, unfollowed)
	}
}
