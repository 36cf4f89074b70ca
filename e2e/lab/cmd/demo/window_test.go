package main

import (
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/e2e/lab"
)

var zero = time.Unix(1000, 0)

func at(ms int) time.Time { return zero.Add(time.Duration(ms) * time.Millisecond) }

func exchange(sent, answered int) lab.Exchange {
	e := lab.Exchange{Sent: at(sent)}
	if answered != 0 {
		e.Answered = at(answered)
	}
	return e
}

func TestARowShowsTheWorstOfEachSlot(t *testing.T) {
	w := newWindow(zero, at(300), at(300))
	timeline := lab.Timeline{Exchanges: []lab.Exchange{
		exchange(-500, -499), exchange(-100, -99), exchange(-90, 20), exchange(-85, -84),
		exchange(0, 0), exchange(5, 6), exchange(290, 0), exchange(10, 210), exchange(100000, 100001),
	}}
	for _, c := range []struct {
		waits bool
		want  string
	}{
		{false, "#o        .o"},
		{true, "#oooooooooo...................oooooooooo"[:10] + strings.Repeat(".", 30)},
	} {
		got := strings.TrimRight(w.answers(timeline, c.waits), " ")
		if got != c.want {
			t.Errorf("waits %t:\n got %q\nwant %q", c.waits, got, c.want)
		}
	}
}

func TestTheOwnersRowIsSilentWhereNobodySpoke(t *testing.T) {
	w := newWindow(zero, at(30), at(30))
	got := w.owners([]lab.Utterance{{At: at(-100), Node: 1}, {At: at(-95), Node: 2}, {At: at(15), Node: 3}, {At: at(-5000), Node: 3}})
	if want := "2..........3."; strings.TrimRight(got, " ") != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestSlotsGrowWithWhatIsToBeShown(t *testing.T) {
	for until, want := range map[int]int{100: 10, 499: 10, 501: 20, 1200: 50, 9000: 200, 60000: 500} {
		w := newWindow(zero, at(until), at(until))
		if got := w.slot; got != time.Duration(want)*time.Millisecond {
			t.Errorf("%d ms are shown in slots of %s, want %d ms", until, got, want)
		}
		if r := w.ruler(); len(r) > width || r[before:before+5] != "|0 ms" {
			t.Errorf("ruler %q", r)
		}
	}
}

func TestTheGapIsCountedFromTheMoment(t *testing.T) {
	timeline := lab.Timeline{Exchanges: []lab.Exchange{exchange(-900, -899), exchange(-100, 30), exchange(35, 130), exchange(132, 133)}}
	if got := gapAfter(timeline, zero); got != 100*time.Millisecond {
		t.Errorf("gap %s", got)
	}
}

func TestNoEscapeCodesOffTheTerminal(t *testing.T) {
	var b strings.Builder
	s := &screen{w: &b}
	s.picture([]string{s.marks("##oo..")}, false)
	s.picture([]string{s.marks("##oo..##"), s.paint(bold, "x")}, true)
	if got := b.String(); got != "##oo..##\nx\n" {
		t.Errorf("%q", got)
	}
	b.Reset()
	s = &screen{w: &b, live: true, colour: true}
	s.picture([]string{"a", "b"}, false)
	s.picture([]string{s.marks("#."), "d"}, true)
	if got, want := b.String(), "\x1b[Ka\n\x1b[Kb\n\x1b[2A\x1b[K\x1b[32m#\x1b[0m\x1b[31m.\x1b[0m\n\x1b[Kd\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
