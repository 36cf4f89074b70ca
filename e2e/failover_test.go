package e2e

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/sallyport/sallyport/e2e/lab"
)

// fault is something that happens to the gateways while traffic flows.
type fault struct {
	name string
	// do strikes and says after which the VIP must be held by one of the nodes given.
	do func(w *world, holder int) (heirs []int)
	// mend undoes it; nil: there is nothing to undo.
	mend func(w *world, holder int)
	// from which nodes there is traffic that must go on; nil: all but the holder's.
	from func(w *world, holder int) []int
	two  bool // needs two networks
}

func everyNode(w *world, _ int) []int { return []int{1, 2, 3} }

var faults = []fault{
	{
		name: "power cut of the holder's node",
		do: func(w *world, holder int) []int {
			_, err := w.PowerCut(holder)
			w.must(err)
			return w.Others(holder)
		},
		mend: func(w *world, holder int) {
			w.must(w.Reboot(holder))
			w.restart(holder)
		},
	},
	{
		name: "gateway killed",
		do: func(w *world, holder int) []int {
			w.must(w.gateway(holder).Kill())
			return w.Others(holder)
		},
		mend: func(w *world, holder int) { w.restartGateway(holder) },
		from: everyNode,
	},
	{
		name: "gateway stopped by SIGSTOP",
		do: func(w *world, holder int) []int {
			w.must(w.gateway(holder).Pause())
			return w.Others(holder)
		},
		mend: func(w *world, holder int) { w.must(w.gateway(holder).Continue()) },
		from: everyNode,
	},
	{
		name: "gateway ended by SIGTERM",
		do: func(w *world, holder int) []int {
			w.must(w.gateway(holder).Stop())
			return w.Others(holder)
		},
		mend: func(w *world, holder int) { w.restartGateway(holder) },
		from: everyNode,
	},
	{
		name: "gossip of the holder cut",
		do: func(w *world, holder int) []int {
			w.must(w.CutGossip(holder))
			return w.Others(holder)
		},
		mend: func(w *world, holder int) { w.must(w.Heal()) },
		from: everyNode,
	},
	{
		name: "outside link of the holder cut",
		do: func(w *world, holder int) []int {
			w.must(w.CutOutside(holder))
			return w.Others(holder)
		},
		mend: func(w *world, holder int) { w.must(w.Heal()) },
		from: everyNode,
		two:  true,
	},
	{
		name: "partition, the holder alone",
		do: func(w *world, holder int) []int {
			w.must(w.Partition([]int{holder}, w.Others(holder)))
			return w.Others(holder)
		},
		mend: func(w *world, holder int) { w.must(w.Heal()) },
	},
	{
		name: "partition, the holder with one other",
		do: func(w *world, holder int) []int {
			rest := w.Others(holder)
			w.must(w.Partition([]int{holder, rest[0]}, rest[1:]))
			return []int{holder}
		},
		mend: func(w *world, holder int) { w.must(w.Heal()) },
		from: func(w *world, holder int) []int { return []int{holder, w.Others(holder)[0]} },
	},
	{
		name: "everyone isolated, then healed",
		do: func(w *world, holder int) []int {
			w.must(w.Isolate())
			w.await(func() error {
				for _, j := range w.Options.GatewayNodes {
					if s := w.status(lab.Gateway, j); len(s.VIPs) != 1 || s.VIPs[0].Held {
						return errors.New("somebody holds without a quorum")
					}
				}
				return nil
			})
			w.must(w.Heal())
			return []int{1, 2, 3}
		},
		from: everyNode,
	},
	{
		name: "all gateways restarted at once",
		do: func(w *world, holder int) []int {
			var errs []error
			for _, j := range w.Options.GatewayNodes {
				errs = append(errs, w.gateway(j).Kill())
			}
			w.must(errors.Join(errs...))
			for _, j := range w.Options.GatewayNodes {
				_, err := w.StartGateway(j)
				w.must(err)
			}
			return []int{1, 2, 3}
		},
		from: everyNode,
	},
}

func (w *world) gateway(j int) *lab.Program {
	w.t.Helper()
	p, err := w.Program(lab.Gateway, j)
	w.must(err)
	return p
}

func (w *world) restartGateway(j int) {
	w.t.Helper()
	_, err := w.StartGateway(j)
	w.must(err)
	w.await(w.ready(lab.Gateway, j))
}

func (w *world) restart(j int) {
	w.t.Helper()
	w.restartGateway(j)
	_, err := w.StartAgent(j)
	w.must(err)
	w.await(w.ready(lab.Agent, j))
}

func TestTrafficGoesOnAfter(t *testing.T) {
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			w := start(t, lab.Options{TwoNetworks: f.two})
			holder := w.holder()
			from := w.Others(holder)
			if f.from != nil {
				from = f.from(w, holder)
			}
			for _, j := range from {
				w.seenEventually(selected(j), partner, theVIP)
			}
			tr := w.startTraffic(from...)

			late := map[int]uint64{}
			for _, j := range w.Options.GatewayNodes {
				late[j] = w.late(j)
			}
			struck := time.Now()
			heirs := f.do(w, holder)
			heir := w.awaitHolder(heirs...)
			w.flowsAgain(tr, time.Now())
			t.Logf("n%d held, n%d took over; the echo of client 0 came back after %v", holder, heir, back(tr, struck))

			if f.mend != nil {
				f.mend(w, holder)
				w.flowsAgain(tr, time.Now())
				switch now := w.holder(); {
				case now == heir:
				case w.late(heir) > late[heir]:
					t.Logf("n%d was too late to renew its lease, and n%d has the VIP", heir, now)
				default:
					t.Errorf("n%d took over from n%d when n%d came back: a holder is to stay", now, heir, holder)
				}
				w.seenEventually(selected(holder), partner, theVIP)
			}
			w.stop(tr)
			w.noLeak()
			w.oneHolder()
		})
	}
}

// late is how often a gateway lost its lease because it did not run, or was not answered, in time:
// with the default timing a busy machine may do that.
func (w *world) late(j int) uint64 {
	w.t.Helper()
	moved := w.status(lab.Gateway, j).VIPs[0].Transitions
	return moved["nothing ran for a lease or more"] + moved["its lease ran out"]
}

func back(tr *traffic, since time.Time) time.Duration {
	d, _ := tr.echo[0].Report().NextReply(since)
	return d.Round(time.Millisecond)
}

// goesOn waits for an answer to what a stream sends from now on.
func (w *world) goesOn(s *lab.Stream) {
	w.t.Helper()
	after := time.Now()
	w.await(func() error {
		if _, ok := s.Report().NextReply(after); !ok || s.Broken() != nil {
			return fmt.Errorf("the stream has no answer, broken: %v", s.Broken())
		}
		return nil
	})
}

// A replica that held the VIP before knows its connections only as they were then.
func TestConnectionsSurviveTheReturnOfTheVIP(t *testing.T) {
	w := start(t, lab.Options{})
	first := w.holder()
	s, err := w.StartStream(selected(w.Others(first)[0]), partner, time.Millisecond)
	w.must(err)
	held := map[int]bool{}
	for holder := first; !held[holder]; {
		held[holder] = true
		w.goesOn(s)
		w.must(w.gateway(holder).Stop())
		next := w.awaitHolder(w.Others(holder)...)
		w.goesOn(s)
		w.restartGateway(holder)
		holder = next
	}
	w.goesOn(s)
	s.Stop()
	w.noLeak()
	w.oneHolder()
}

// A replica that was cut off never hears of the holder that came and went meanwhile.
func TestConnectionsSurviveAHolderThatTheNextOneMissed(t *testing.T) {
	for _, replicate := range []bool{true, false} {
		t.Run(fmt.Sprintf("replicate=%t", replicate), func(t *testing.T) {
			w := start(t, lab.Options{GatewayArgs: []string{fmt.Sprintf("--replicate=%t", replicate)}})
			first := w.holder()
			rest := w.Others(first)
			s, err := w.StartStream(selected(rest[0]), partner, time.Millisecond)
			w.must(err)
			w.goesOn(s)
			w.must(w.CutGossip(first))
			w.awaitHolder(rest...)
			w.goesOn(s)
			for _, j := range rest {
				w.must(w.gateway(j).Kill())
			}
			w.must(w.Heal())
			// It votes, and has nothing to hold by.
			_, err = w.StartGateway(rest[0], "--source", "dir:"+w.Manifests.Dir+"-gone", "--state-dir", t.TempDir())
			w.must(err)
			w.awaitHolder(first)
			w.goesOn(s)
			s.Stop()
			w.noLeak()
			w.oneHolder()
		})
	}
}
