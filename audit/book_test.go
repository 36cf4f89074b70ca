package audit

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sallyport/sallyport/gateway"
)

var (
	theVIP  = netip.MustParseAddr("192.0.2.10")
	podAddr = netip.MustParseAddr("10.244.1.5")
	partner = netip.MustParseAddr("203.0.113.9")
	began   = time.Date(2026, 11, 21, 14, 0, 0, 0, time.UTC)
)

func planOf(pod string, routes ...gateway.PlannedRoute) gateway.Plan {
	plan := gateway.Plan{Routes: routes}
	if pod != "" {
		plan.Pods = []gateway.PlannedPod{{Addr: podAddr, Namespace: "shop", Name: pod, UID: pod + "-uid", Node: "n1", Routes: []int{0}}}
	}
	return plan
}

var audited = gateway.PlannedRoute{Name: "payments", ID: 7, VIP: theVIP, Audit: true}

func sight(kind Kind, port uint16, change ...func(*Sighting)) Sighting {
	s := Sighting{Key: KeyOf(podAddr, partner, port, 443, 6), Kind: kind, ID: 1, VIP: theVIP, Port: port, Route: 7, Replied: true}
	for _, c := range change {
		c(&s)
	}
	return s
}

func over(s *Sighting)    { s.Over = true }
func reset(s *Sighting)   { s.Over, s.Reset = true, true }
func expired(s *Sighting) { s.Expired = true }
func silent(s *Sighting)  { s.Replied = false }
func later(s *Sighting)   { s.ID++ }
func counted(s *Sighting) {
	s.Counted, s.Sent, s.Received = true, Traffic{3, 300}, Traffic{2, 2000}
}

// step is one thing that a book is told, a second after the one before.
type step struct {
	see    *Sighting
	holder string
	in     *bool // in step with the holder
	plan   *Directory
	table  []Sighting
	miss   bool
	stop   bool
	adrift bool
	first  bool // of a table, the first
}

// adrift: this gateway holds no more, and knows nobody who does.
var adrift = step{adrift: true}

func see(s Sighting) step        { return step{see: &s} }
func holder(name string) step    { return step{holder: name} }
func settled(yes bool) step      { return step{in: &yes} }
func known(d *Directory) step    { return step{plan: d} }
func compare(s ...Sighting) step { return step{table: append([]Sighting{}, s...), miss: true} }

// told runs the steps and says what was written about connections.
func told(t *testing.T, b Book, steps ...step) (lines []string) {
	t.Helper()
	b.Gateway = "a"
	d := NewDirectory(planOf("web", audited), nil)
	for i, s := range steps {
		at := began.Add(time.Duration(i) * time.Second)
		var out []Record
		switch {
		case s.see != nil:
			out = b.See(nil, s.see, at, d)
		case s.holder != "":
			out = b.Holder(nil, theVIP, s.holder, at, d)
		case s.in != nil:
			b.Settled(theVIP, *s.in)
		case s.plan != nil:
			d = s.plan
		case s.adrift:
			b.Adrift(theVIP)
		case s.stop:
			out = b.Stop(nil, at, d)
		case s.miss:
			var missing []Missing
			out, missing = b.Compare(nil, s.table, s.first, at, d)
			out = b.Miss(out, missing, at, d)
		}
		for _, r := range out {
			if r.Event == HolderEvent {
				continue
			}
			from := "?"
			if !r.Start.IsZero() {
				from = fmt.Sprint(int(r.Start.Sub(began).Seconds()))
			}
			line := fmt.Sprintf("%s %s %d %s-%d %s", r.Event, r.Pod.Name, r.Port, from, int(r.Time.Sub(began).Seconds()), r.Reason)
			if r.Counted {
				line += fmt.Sprintf(" %d/%d", r.Sent.Bytes, r.Received.Bytes)
			}
			if r.TakenOver {
				line += " taken over"
			}
			if r.Event == EndEvent && !r.Answered {
				line += " unanswered"
			}
			lines = append(lines, line)
		}
	}
	return lines
}

func TestEveryConnectionIsWrittenOnce(t *testing.T) {
	other := NewDirectory(planOf("next", audited), nil)
	unaudited := audited
	unaudited.Audit = false
	base := NewDirectory(planOf("web", audited), nil)
	for name, c := range map[string]struct {
		book  Book
		steps []step
		want  []string
	}{
		"ended by both sides, written when it closes": {Book{}, []step{
			holder("a"), see(sight(Began, 9)), see(sight(Closed, 9, over)), see(sight(Gone, 9, over, expired))},
			[]string{"end web 9 1-2 fin"}},
		"counted, written when the counters are known, ended when it closed": {Book{Counting: true}, []step{
			holder("a"), see(sight(Began, 9)), see(sight(Closed, 9, over)), see(sight(Gone, 9, over, expired, counted))},
			[]string{"end web 9 1-2 fin 300/2000"}},
		"broken off": {Book{}, []step{holder("a"), see(sight(Began, 9)), see(sight(Closed, 9, reset)), see(sight(Gone, 9, reset, expired))},
			[]string{"end web 9 1-2 reset"}},
		"no packet for long": {Book{}, []step{holder("a"), see(sight(Began, 9)), see(sight(Gone, 9, expired))},
			[]string{"end web 9 1-2 timeout"}},
		"never answered": {Book{}, []step{holder("a"), see(sight(Began, 9, silent)), see(sight(Gone, 9, expired, silent))},
			[]string{"end web 9 1-2 timeout unanswered"}},
		"with its start": {Book{Starts: true}, []step{holder("a"), see(sight(Began, 9)), see(sight(Gone, 9, expired))},
			[]string{"start web 9 1-1 ", "end web 9 1-2 timeout"}},
		"pod gone, another has its address": {Book{}, []step{holder("a"), see(sight(Began, 9)), known(other), see(sight(Gone, 9))},
			[]string{"end web 9 1-3 pod_gone"}},
		"pod gone": {Book{}, []step{holder("a"), see(sight(Began, 9)), known(NewDirectory(planOf("", audited), nil)), see(sight(Gone, 9))},
			[]string{"end web 9 1-3 pod_gone"}},
		"route gone": {Book{}, []step{holder("a"), see(sight(Began, 9)), known(NewDirectory(planOf("web"), base)), see(sight(Gone, 9))},
			[]string{"end web 9 1-3 route_gone"}},
		"removed by hand": {Book{}, []step{holder("a"), see(sight(Began, 9)), see(sight(Gone, 9))},
			[]string{"end web 9 1-2 removed"}},
		"no longer audited": {Book{}, []step{holder("a"), see(sight(Began, 9)), known(NewDirectory(planOf("web", unaudited), base)), see(sight(Gone, 9, expired)), {stop: true}}, nil},
		"taken over from another, its beginning seen": {Book{}, []step{
			holder("b"), settled(true), see(sight(Began, 9)), holder("a"), see(sight(Closed, 9, over)), see(sight(Gone, 9, over, expired))},
			[]string{"end web 9 2-4 fin taken over"}},
		"taken over, its beginning not seen": {Book{}, []step{
			holder("b"), see(sight(Began, 9)), settled(true), holder("a"), see(sight(Closed, 9, over)), see(sight(Gone, 9, over, expired))},
			[]string{"end web 9 ?-4 fin taken over"}},
		"out of step, its beginning not seen": {Book{}, []step{
			holder("b"), settled(true), settled(false), see(sight(Began, 9)), holder("a"), see(sight(Closed, 9, over))},
			[]string{"end web 9 ?-5 fin taken over"}},
		"a standby's copy is the holder's to write":         {Book{}, []step{holder("b"), settled(true), see(sight(Began, 9)), see(sight(Gone, 9))}, nil},
		"a standby's copy that was never seen":              {Book{}, []step{holder("b"), see(sight(Gone, 9))}, nil},
		"a standby's copy whose end was lost":               {Book{}, []step{holder("b"), see(sight(Began, 9)), compare()}, nil},
		"a standby's copy that was never seen nor answered": {Book{}, []step{holder("b"), see(sight(Gone, 9, silent))}, nil},
		"found closed at the first look, an earlier run's to write": {Book{}, []step{
			holder("a"), {table: []Sighting{sight(Present, 9, over)}, miss: true, first: true}, see(sight(Gone, 9, over, expired))}, nil},
		"closed and forgotten when nobody was known to hold": {Book{Counting: true}, []step{
			holder("a"), see(sight(Began, 9)), see(sight(Closed, 9, over)), adrift, see(sight(Gone, 9, over, counted)), holder("b")},
			[]string{"end web 9 1-2 fin 300/2000 taken over"}},
		"given away, the heir's to write": {Book{}, []step{holder("a"), see(sight(Began, 9)), holder("b"), see(sight(Gone, 9))}, nil},
		"given away unanswered, which no heir knows": {Book{}, []step{holder("a"), see(sight(Began, 9, silent)), holder("b"), see(sight(Gone, 9, silent))},
			[]string{"end web 9 1-3 moved taken over unanswered"}},
		"given away, the heir's to write although it is forgotten here": {Book{}, []step{
			holder("a"), see(sight(Began, 9)), holder("b"), see(sight(Gone, 9, expired))}, nil},
		"ended when nobody was known to hold, and another did": {Book{}, []step{
			holder("a"), see(sight(Began, 9)), adrift, see(sight(Gone, 9, expired)), holder("b")}, nil},
		"ended when nobody was known to hold, unanswered, and another did": {Book{}, []step{
			holder("a"), see(sight(Began, 9)), adrift, see(sight(Gone, 9, expired, silent)), holder("b")},
			[]string{"end web 9 1-3 moved taken over unanswered"}},
		"ended when nobody was known to hold, and nobody else did": {Book{}, []step{
			holder("a"), see(sight(Began, 9)), adrift, see(sight(Gone, 9, expired)), holder("a")},
			[]string{"end web 9 1-3 timeout"}},
		"ended when nobody was known to hold, and the gateway stops": {Book{}, []step{
			holder("a"), see(sight(Began, 9)), adrift, see(sight(Gone, 9, expired)), {stop: true}},
			[]string{"end web 9 1-3 timeout"}},
		"missing when nobody was known to hold, and nobody else did": {Book{}, []step{
			holder("a"), see(sight(Began, 9)), adrift, see(sight(Gone, 9, expired)), compare(), holder("a")},
			[]string{"end web 9 1-3 timeout"}},
		"goes on when nobody else held": {Book{}, []step{
			holder("a"), see(sight(Began, 9)), adrift, holder("a"), see(sight(Gone, 9, expired))},
			[]string{"end web 9 1-4 timeout"}},
		"given away when it had closed": {Book{Counting: true}, []step{
			holder("a"), see(sight(Began, 9)), see(sight(Closed, 9, over)), holder("b"), see(sight(Gone, 9, over, counted))},
			[]string{"end web 9 1-2 fin 300/2000 taken over"}},
		"the beginning was lost": {Book{}, []step{holder("a"), see(sight(Closed, 9, over)), see(sight(Gone, 9, over, expired))},
			[]string{"end web 9 ?-1 fin taken over"}},
		"all but the end was lost": {Book{}, []step{holder("a"), see(sight(Gone, 9, over, expired))},
			[]string{"end web 9 ?-1 fin taken over"}},
		"the end was lost": {Book{}, []step{holder("a"), see(sight(Began, 9)), compare(), see(sight(Began, 9, later))},
			[]string{"end web 9 1-2 unobserved unanswered"}},
		"the end was lost, and another began": {Book{}, []step{holder("a"), see(sight(Began, 9)), see(sight(Began, 9, later)), see(sight(Gone, 9, later, expired))},
			[]string{"end web 9 1-2 unobserved unanswered", "end web 9 2-3 timeout"}},
		"found in the table": {Book{}, []step{holder("a"), compare(sight(Present, 9)), see(sight(Gone, 9, expired))},
			[]string{"end web 9 ?-2 timeout taken over"}},
		"found in the table before its event": {Book{}, []step{holder("a"), compare(sight(Present, 9)), see(sight(Began, 9)), see(sight(Gone, 9, expired))},
			[]string{"end web 9 2-3 timeout taken over"}},
		"found closed": {Book{}, []step{holder("a"), compare(sight(Present, 9, over)), see(sight(Gone, 9, over, expired))},
			[]string{"end web 9 ?-1 fin taken over"}},
		"the gateway stops and nobody takes over": {Book{}, []step{holder("a"), see(sight(Began, 9)), see(sight(Began, 8)), {stop: true}},
			[]string{"end web 9 1-3 stopped unanswered", "end web 8 2-3 stopped unanswered"}},
		"the gateway stops, the heir has them": {Book{}, []step{holder("a"), see(sight(Began, 9)), holder("b"), {stop: true}}, nil},
		"the gateway stops before the counters are known": {Book{Counting: true}, []step{
			holder("a"), see(sight(Began, 9)), see(sight(Closed, 9, over)), holder("b"), {stop: true}},
			[]string{"end web 9 1-2 fin taken over"}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := told(t, c.book, c.steps...); fmt.Sprint(got) != fmt.Sprint(c.want) {
				t.Errorf("written %q, want %q", got, c.want)
			}
		})
	}
}

// What was found in the table and is then told to have begun was left out by nobody.
func TestWhatIsFoundIsCounted(t *testing.T) {
	b, d := Book{Gateway: "a"}, NewDirectory(planOf("web", audited), nil)
	one, two := sight(Present, 1), sight(Present, 2)
	b.Compare(nil, []Sighting{one, two}, false, began, d)
	if b.Found() != 2 {
		t.Errorf("%d are found, 2 were there", b.Found())
	}
	one.Kind = Began
	if b.See(nil, &one, began, d); b.Found() != 1 {
		t.Errorf("%d are found, the beginning of one was told", b.Found())
	}
	three := sight(Closed, 3, over)
	if b.See(nil, &three, began, d); b.Found() != 2 {
		t.Errorf("%d are found, with one whose end alone was told", b.Found())
	}
}

// What an echo has in place of a port is its type.
func TestAnEchoHasNoDestinationPort(t *testing.T) {
	b, d := Book{Gateway: "a", Starts: true}, NewDirectory(planOf("web", audited), nil)
	out := b.Holder(nil, theVIP, "a", began, d)
	s := sight(Began, 9, func(s *Sighting) { s.Protocol, s.DstPort = 1, 8<<8 })
	if out = b.See(out, &s, began, d); len(out) != 2 || out[1].Protocol != "icmp" || out[1].DestinationPort != 0 {
		t.Errorf("on record is %+v", out)
	}
}

// Who holds a VIP is on record when another does: not when this gateway lost it and had it again.
func TestAChangeOfTheHolderIsOnRecord(t *testing.T) {
	b, d := Book{Gateway: "a"}, NewDirectory(planOf("web", audited), nil)
	var out []Record
	for _, holder := range []string{"b", "a", "", "a", "", "b"} {
		if holder == "" {
			b.Adrift(theVIP)
			continue
		}
		out = b.Holder(out, theVIP, holder, began, d)
	}
	var names []string
	for _, r := range out {
		names = append(names, r.Holder)
	}
	if fmt.Sprint(names) != "[b a b]" {
		t.Errorf("on record are the holders %v, want [b a b]", names)
	}
}

// Whatever of a holder's events is lost, each connection is written once, if only it is
// there when the table is looked at, or its end is heard.
func TestNoConnectionIsWrittenTwiceOrNever(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := Book{Gateway: "a", Counting: rapid.Bool().Draw(t, "counting")}
		d := NewDirectory(planOf("web", audited), nil)
		at := began
		b.Holder(nil, theVIP, "a", at, d)
		table := map[uint16]Sighting{} // the kernel's
		noticed := map[[2]uint32]bool{}
		id := uint32(0)
		var out []Record
		name := func(s Sighting) [2]uint32 { return [2]uint32{uint32(s.Port), s.ID} }
		hear := func(s Sighting) {
			if !rapid.Bool().Draw(t, "lost") {
				noticed[name(s)] = true
				out = b.See(out, &s, at, d)
			}
		}
		look := func() {
			var present []Sighting
			for _, s := range table {
				s.Kind = Present
				present = append(present, s)
				noticed[name(s)] = true
			}
			var missing []Missing
			out, missing = b.Compare(out, present, false, at, d)
			out = b.Miss(out, missing, at, d)
		}
		ends := map[uint16]int{}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			at = at.Add(time.Second)
			port := rapid.Uint16Range(1, 4).Draw(t, "port")
			s, there := table[port]
			switch {
			case !there && rapid.Bool().Draw(t, "look"):
				look()
			case !there:
				id++
				s = sight(Began, port, func(s *Sighting) { s.ID = id })
				table[port] = s
				hear(s)
			case !s.Over && rapid.Bool().Draw(t, "close"):
				s.Kind, s.Over = Closed, true
				table[port] = s
				hear(s)
			default:
				delete(table, port)
				s.Kind, s.Expired = Gone, true
				hear(s)
			}
		}
		for port, s := range table {
			delete(table, port)
			s.Kind, s.Expired = Gone, true
			noticed[name(s)] = true
			out = b.See(out, &s, at, d)
		}
		look()
		for _, r := range out {
			ends[r.Port]++
		}
		for port := uint16(1); port <= 4; port++ {
			want := 0
			for n := range noticed {
				if n[0] == uint32(port) {
					want++
				}
			}
			if ends[port] != want {
				t.Fatalf("port %d: %d connections were noticed, %d are written: %v", port, want, ends[port], out)
			}
		}
		if b.Len() != 0 {
			t.Fatalf("%d connections are still followed, none is there", b.Len())
		}
	})
}
