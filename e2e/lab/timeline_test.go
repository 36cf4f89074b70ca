package lab

import (
	"net/netip"
	"slices"
	"testing"
	"time"
)

// at is n milliseconds after an arbitrary moment.
func at(n int) time.Time { return time.Unix(1000, 0).Add(time.Duration(n) * time.Millisecond) }

// asked makes a timeline of pairs: sent and answered at, -1 for never.
func asked(pairs ...[2]int) Timeline {
	var t Timeline
	for _, p := range pairs {
		e := Exchange{Sent: at(p[0])}
		if p[1] >= 0 {
			e.Answered = at(p[1])
		}
		t.Exchanges = append(t.Exchanges, e)
	}
	return t
}

func TestTimeline(t *testing.T) {
	const never = -1
	for _, c := range []struct {
		name      string
		timeline  Timeline
		from, to  int // longest gap
		lost      int
		fault     int
		nextReply int // ms after the fault, -1 for none
	}{
		{"nothing asked", Timeline{}, 0, 0, 0, 0, never},
		{"steady", asked([2]int{0, 1}, [2]int{5, 6}, [2]int{10, 11}), 1, 6, 0, 4, 2},
		{"answers before the fault and after", asked([2]int{0, 1}, [2]int{5, never}, [2]int{10, never}, [2]int{15, 16}), 1, 16, 2, 3, 13},
		{"an answer under way at the fault is none after it", asked([2]int{0, 1}, [2]int{5, 8}, [2]int{10, never}, [2]int{15, 17}), 8, 17, 1, 6, 11},
		{"late answers overtake", asked([2]int{0, 20}, [2]int{5, 7}, [2]int{10, 11}), 11, 20, 0, 1, 6},
		{"first answers late", asked([2]int{0, never}, [2]int{5, never}, [2]int{10, 12}, [2]int{15, 16}), 0, 12, 2, 0, 12},
		{"silence until the end", asked([2]int{0, 1}, [2]int{5, never}, [2]int{10, never}), 1, 10, 2, 3, never},
		{"never an answer", asked([2]int{0, never}, [2]int{5, never}), 0, 5, 2, 0, never},
	} {
		t.Run(c.name, func(t *testing.T) {
			if gap := c.timeline.LongestGap(); len(c.timeline.Exchanges) > 0 && gap != (Gap{at(c.from), at(c.to)}) {
				t.Errorf("longest gap from %s to %s", gap.From.Sub(at(0)), gap.To.Sub(at(0)))
			} else if len(c.timeline.Exchanges) == 0 && gap.Length() != 0 {
				t.Errorf("longest gap %s of nothing", gap.Length())
			}
			if got := c.timeline.Lost(); got != c.lost {
				t.Errorf("lost %d, want %d", got, c.lost)
			}
			got, ok := c.timeline.NextReply(at(c.fault))
			if want := time.Duration(c.nextReply) * time.Millisecond; ok != (c.nextReply >= 0) || ok && got != want {
				t.Errorf("next reply %s, %t; want %s", got, ok, want)
			}
		})
	}
}

func TestTimelineBetween(t *testing.T) {
	tl := asked([2]int{0, 1}, [2]int{5, 6}, [2]int{10, 11})
	if got := tl.Between(at(5), at(10)); len(got.Exchanges) != 1 || got.Exchanges[0].Sent != at(5) {
		t.Errorf("from 5 to before 10: %v", got.Exchanges)
	}
	if got := tl.Between(at(5), time.Time{}); len(got.Exchanges) != 2 {
		t.Errorf("from 5: %v", got.Exchanges)
	}
}

func TestQuantile(t *testing.T) {
	ms := func(n int) time.Duration { return time.Duration(n) * time.Millisecond }
	for _, c := range []struct {
		q    float64
		want time.Duration
	}{{0, ms(1)}, {0.25, ms(1)}, {0.5, ms(2)}, {0.51, ms(3)}, {0.95, ms(4)}, {1, ms(4)}} {
		if got := Quantile([]time.Duration{ms(3), ms(1), ms(4), ms(2)}, c.q); got != c.want {
			t.Errorf("quantile %g is %s, want %s", c.q, got, c.want)
		}
	}
	if got := Quantile(nil, 0.5); got != 0 {
		t.Errorf("median of nothing is %s", got)
	}
}

func TestViolations(t *testing.T) {
	type word struct{ ms, node int }
	for _, c := range []struct {
		name  string
		said  []word
		want  []int // who was out of order
		owned []int
	}{
		{"one owner", []word{{0, 1}, {5, 1}}, nil, []int{1}},
		{"a move", []word{{0, 1}, {5, 2}, {10, 2}}, nil, []int{1, 2}},
		{"the old owner speaks", []word{{0, 1}, {5, 2}, {6, 1}, {7, 2}}, []int{2, 1}, []int{1, 2, 1, 2}},
		{"the old owner speaks long after", []word{{0, 1}, {5, 2}, {900, 2}, {903, 1}, {905, 2}}, []int{1}, []int{1, 2, 1, 2}},
		{"a move back soon", []word{{0, 1}, {5, 2}, {200, 2}, {203, 1}, {208, 1}}, nil, []int{1, 2, 1}},
		{"a move back later", []word{{0, 1}, {5, 2}, {2000, 2}, {2005, 1}, {2010, 1}}, nil, []int{1, 2, 1}},
		{"a chain of heirs", []word{{0, 1}, {5, 2}, {10, 3}, {15, 3}}, nil, []int{1, 2, 3}},
		{"the first of a chain speaks", []word{{0, 1}, {5, 2}, {10, 3}, {15, 1}, {20, 3}}, []int{1}, []int{1, 2, 3, 1, 3}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var said []Utterance
			for _, w := range c.said {
				said = append(said, Utterance{At: at(w.ms), VIP: netip.MustParseAddr("192.0.2.10"), Node: w.node})
			}
			var got []int
			for _, v := range violations(said, Settle) {
				got = append(got, v.Node)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("violations by %v, want %v", got, c.want)
			}
			got = nil
			for _, o := range owners(said) {
				got = append(got, o.Node)
			}
			if !slices.Equal(got, c.owned) {
				t.Errorf("owners %v, want %v", got, c.owned)
			}
		})
	}
}

// Each word is an answer, with when it was asked and when it was heard.
func TestProvenIsWhatNoDelayExplains(t *testing.T) {
	type word struct{ asked, heard, node int }
	for _, c := range []struct {
		name string
		said []word
		want []int
	}{
		{"one owner", []word{{0, 1, 1}, {5, 6, 1}}, nil},
		{"a move", []word{{0, 1, 1}, {5, 6, 2}, {10, 11, 2}}, nil},
		{"two owners", []word{{0, 1, 1}, {5, 6, 2}, {10, 11, 1}}, []int{2}},
		{"the old owner's answer was long on its way", []word{{0, 1, 2}, {4, 5, 2}, {0, 7, 1}, {10, 11, 2}}, nil},
		{"a question to the old owner was", []word{{4, 5, 2}, {3, 8, 1}, {10, 11, 2}}, nil},
		{"the new owner's was, and the old one answered later", []word{{0, 1, 1}, {5, 20, 2}, {10, 21, 1}}, nil},
		{"there and back", []word{{0, 1, 1}, {50, 51, 2}, {150, 151, 1}}, nil},
	} {
		var said []Utterance
		for _, w := range c.said {
			said = append(said, Utterance{At: at(w.heard), Asked: at(w.asked), Answer: true, VIP: vip, Node: w.node})
		}
		var got []int
		for _, v := range proven(said, Settle) {
			got = append(got, v.Node)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestAnAnswerTellsItsQuestion(t *testing.T) {
	for _, n := range []uint16{0, 1, 255, 256, 65535} {
		if got, is := questionNumber(questionMAC(n)); !is || got != n {
			t.Errorf("question %d is taken for %d, %t", n, got, is)
		}
	}
	if n, is := questionNumber(NodeMAC(1)); is {
		t.Errorf("a node's address is taken for question %d", n)
	}
}

func TestARPFrame(t *testing.T) {
	f := gratuitous(arpReply, NodeMAC(2), vip)
	got, ok := parseARP(f.bytes())
	if !ok || got.op != arpReply || got.sender != vip || got.target != vip || got.from.String() != NodeMAC(2).String() || len(f.bytes()) != 42 {
		t.Errorf("%t %+v", ok, got)
	}
	if _, ok := parseARP(f.bytes()[:41]); ok {
		t.Error("a short frame was taken")
	}
}

func TestDiff(t *testing.T) {
	before := HostState{{"a", "one\ntwo\nthree\n"}, {"b", "same\n"}}
	after := HostState{{"a", "one\nTWO\nthree\nfour\n"}, {"b", "same\n"}}
	if got, want := before.Diff(after), "a:\n  - two\n  + TWO\n  + four\n"; got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if got := before.Diff(before); got != "" {
		t.Errorf("a state differs from itself:\n%s", got)
	}
	for _, pair := range [][2]string{
		{":INPUT ACCEPT [3:180]", ":INPUT ACCEPT [0:0]"},
		{"3: sally@if7: <UP>", "9: sally@if12: <UP>"},
		{"192.0.2.10 timeout 12 packets 4 bytes 3", "192.0.2.10 timeout 3 packets 0 bytes 0"},
	} {
		if a, b := settle(pair[0]), settle(pair[1]); a != b {
			t.Errorf("%q and %q differ once settled: %q, %q", pair[0], pair[1], a, b)
		}
	}
	if a, b := settle("4: sally0: <UP>"), settle("4: sally1: <UP>"); a == b {
		t.Errorf("names of interfaces are lost: %q", a)
	}
}

func TestStallIsOfItsSpanOnly(t *testing.T) {
	at := func(ms int) time.Time { return time.Unix(0, 0).Add(time.Duration(ms) * time.Millisecond) }
	var line Timeline
	for _, ms := range []int{0, 50, 60, 90, 95, 100, 180} {
		line.Exchanges = append(line.Exchanges, Exchange{Sent: at(ms), Answered: at(ms)})
	}
	for _, c := range []struct{ from, to, begin, end int }{
		{55, 200, 100, 180},  // the longest, not the first
		{70, 98, 60, 90},     // it had begun before
		{50, 98, 60, 90},     // one that ended just then is over
		{96, 150, 100, 150},  // nothing more came
		{190, 250, 180, 250}, // nor ever
	} {
		if got := line.Stall(at(c.from), at(c.to)); got.From != at(c.begin) || got.To != at(c.end) {
			t.Errorf("from %d to %d: %v to %v", c.from, c.to, got.From.Sub(at(0)), got.To.Sub(at(0)))
		}
	}
}
