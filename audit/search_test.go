package audit

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// spell is a connection of one pod that has the port for some seconds.
type spell struct {
	pod      string
	port     uint16
	from, to int // seconds; to 0: open
	event    Event
	reason   Reason
	known    bool // when it began
}

func (s spell) record() Record {
	r := Record{Event: s.event, Gateway: "a", Pod: Pod{Name: s.pod}, VIP: theVIP, Port: s.port, Source: podAddr, SourcePort: s.port,
		Destination: partner, DestinationPort: 443, Protocol: "tcp", Reason: s.reason, Time: began.Add(time.Duration(s.to) * time.Second)}
	if s.event == StartEvent {
		r.Time = began.Add(time.Duration(s.from) * time.Second)
	}
	if s.known {
		r.Start = began.Add(time.Duration(s.from) * time.Second)
	}
	return r
}

func TestWhoHadThePort(t *testing.T) {
	end := func(pod string, from, to int) spell { return spell{pod, 9, from, to, EndEvent, Finished, true} }
	open := func(pod string, from int) spell { return spell{pod, 9, from, 0, StartEvent, "", true} }
	all := []spell{
		end("first", 10, 20), {"other", 8, 10, 20, EndEvent, Finished, true},
		open("second", 30), end("second", 30, 40), open("third", 50),
		{"early", 7, 0, 20, EndEvent, Timeout, false},
		{"left", 6, 5, 10, EndEvent, Stopped, true}, {"back", 5, 5, 10, EndEvent, Stopped, true}, {"back", 5, 0, 20, EndEvent, Finished, false},
	}
	for _, c := range []struct {
		at, within int
		port       uint16
		want       string
	}{
		{9, 0, 9, "[]"}, {9, 1, 9, "[first]"}, {10, 0, 9, "[first]"}, {20, 0, 9, "[first]"}, {21, 0, 9, "[]"}, {21, 1, 9, "[first]"},
		{15, 0, 8, "[other]"}, {35, 0, 9, "[second]"}, {45, 0, 9, "[]"}, {99, 0, 9, "[third]"}, {49, 0, 9, "[]"},
		{3, 0, 7, "[early]"}, {21, 0, 7, "[]"}, {15, 0, 6, "[left]"}, {4, 0, 6, "[]"}, {15, 0, 5, "[back]"}, {25, 0, 5, "[]"}, {15, 0, 4, "[]"},
	} {
		s := NewSearch(Question{At: began.Add(time.Duration(c.at) * time.Second), Within: time.Duration(c.within) * time.Second, Port: c.port})
		for _, spell := range all {
			s.Add(spell.record())
		}
		names := []string{}
		for _, r := range s.Answer().Found {
			names = append(names, r.Pod.Name)
		}
		if fmt.Sprint(names) != c.want {
			t.Errorf("port %d at %d±%d: %v, want %s", c.port, c.at, c.within, names, c.want)
		}
	}
}

func TestTheAnswerSaysWhereElseToLook(t *testing.T) {
	at := func(s int) time.Time { return began.Add(time.Duration(s) * time.Second) }
	three := uint64(3)
	s := NewSearch(Question{At: at(20), Port: 9, VIP: theVIP, Protocol: "udp"})
	for _, r := range []Record{
		{Time: at(10), Event: HolderEvent, Gateway: "a", VIP: theVIP, Holder: "b"},
		{Time: at(5), Event: HolderEvent, Gateway: "a", VIP: theVIP, Holder: "a"},
		{Time: at(30), Event: HolderEvent, Gateway: "a", VIP: theVIP, Holder: "a"},
		{Time: at(5), Event: HolderEvent, Gateway: "a", VIP: partner, Holder: "a"},
		{Time: at(10), Event: LostEvent, Gateway: "a", Lost: &three}, {Time: at(25), Event: LostEvent, Gateway: "a"},
		spell{"tcp", 9, 10, 30, EndEvent, Finished, true}.record(),
	} {
		if text := r.Append(nil); !s.Concerns(text) {
			t.Errorf("%s is passed over", text)
		}
		s.Add(r)
	}
	a := s.Answer()
	if len(a.Found) != 0 || len(a.Holders) != 1 || a.Holders[0].Holder != "b" || len(a.Lost) != 1 || a.Lost[0].Lost != nil {
		t.Errorf("answer %+v", a)
	}
}

// An answer is the same in whatever order the records come, and no line that matters is
// passed over at a glance.
func TestTheOrderOfRecordsIsOfNoConsequence(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := rapid.SliceOfN(records(), 0, 20).Draw(t, "records")
		for i := range all { // few enough for some to be of one connection
			all[i].Port, all[i].SourcePort, all[i].DestinationPort = all[i].Port%3, 1, 1
			all[i].Source, all[i].Destination, all[i].VIP = podAddr, partner, netip.AddrFrom4([4]byte{192, 0, 2, byte(i % 2)})
			all[i].Gateway = string(rune('a' + i%2))
			all[i].Time = all[i].Time.Add(time.Duration(i) * time.Microsecond) // no two at once
		}
		q := Question{At: moments().Draw(t, "at"), Port: 1, Within: time.Second}
		one, two := NewSearch(q), NewSearch(q)
		for _, r := range all {
			if s := NewSearch(q); !s.Concerns(r.Append(nil)) {
				if s.Add(r); len(s.Answer().Found)+len(s.Answer().Holders)+len(s.Answer().Lost) > 0 {
					t.Fatalf("%+v matters and was passed over", r)
				}
			}
			one.Add(r)
		}
		for _, i := range rapid.Permutation(indexes(len(all))).Draw(t, "order") {
			two.Add(all[i])
		}
		if a, b := fmt.Sprintf("%+v", one.Answer()), fmt.Sprintf("%+v", two.Answer()); a != b {
			t.Fatalf("%s\nand in another order\n%s", a, b)
		}
	})
}

func indexes(n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return all
}
