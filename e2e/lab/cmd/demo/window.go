package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/sallyport/sallyport/e2e/lab"
)

// Marks of a slot, the worst of what was asked in it. Nothing is drawn of what is
// not known yet.
const (
	unknown  = ' '
	answered = '#'
	late     = 'o' // answered, but after more than lateAfter
	lost     = '.'

	lateAfter = 50 * time.Millisecond
)

const (
	width  = 60 // slots of a row, which leaves a line 79 characters
	before = 10 // of them before the event
)

// window is a stretch of time around an event, cut into slots.
type window struct {
	zero time.Time     // the event
	now  time.Time     // nothing is known after it
	slot time.Duration // of one character
}

// newWindow chooses slots so that a moment still lies in the window.
func newWindow(zero, now, until time.Time) window {
	for _, ms := range []time.Duration{10, 20, 50, 100, 200} {
		w := window{zero, now, ms * time.Millisecond}
		if until.Before(w.begin(width)) {
			return w
		}
	}
	return window{zero, now, 500 * time.Millisecond}
}

func (w window) begin(i int) time.Time { return w.zero.Add(time.Duration(i-before) * w.slot) }

// index is the slot of a moment, possibly outside the window.
func (w window) index(at time.Time) int {
	if at.Before(w.begin(0)) {
		return -1
	}
	return int(at.Sub(w.begin(0)) / w.slot)
}

func (w window) row() []byte { return []byte(strings.Repeat(string(rune(unknown)), width)) }

// answers draws what became of a client's questions at the moments they were asked.
// A client that waits for each answer is drawn as waiting over all that time.
func (w window) answers(t lab.Timeline, waits bool) string {
	row := w.row()
	for _, e := range t.Exchanges {
		mark, end := byte(answered), e.Answered
		if end.IsZero() {
			mark, end = lost, w.now
		} else if e.Latency() > lateAfter {
			mark = late
		}
		if mark == lost && w.now.Sub(e.Sent) <= lateAfter {
			continue // under way
		}
		first := w.index(e.Sent)
		last := first
		if waits && mark != answered {
			last = max(first, w.index(end)-1)
		}
		for i := max(first, 0); i <= min(last, width-1); i++ {
			row[i] = worse(row[i], mark)
		}
	}
	return string(row)
}

func worse(a, b byte) byte {
	const order = string(rune(unknown)) + string(rune(answered)) + string(rune(late)) + string(rune(lost))
	if strings.IndexByte(order, a) > strings.IndexByte(order, b) {
		return a
	}
	return b
}

// owners draws the node that last spoke for the VIP in each slot.
func (w window) owners(said []lab.Utterance) string {
	row := w.row()
	for i := range row {
		if !w.now.Before(w.begin(i + 1)) {
			row[i] = lost
		}
	}
	for _, u := range said {
		if i := w.index(u.At); i >= 0 && i < width {
			row[i] = '0' + byte(u.Node)
		}
	}
	return string(row)
}

// ruler numbers every tenth slot.
func (w window) ruler() string {
	var b strings.Builder
	for i := 0; i < width; i += 10 {
		if w.index(w.zero) == i {
			fmt.Fprintf(&b, "%-10s", "|0 ms")
			continue
		}
		ms := w.begin(i).Sub(w.zero).Milliseconds()
		label := fmt.Sprintf("|%+d", ms)
		if len(label) > width-i {
			label = "|"
		}
		fmt.Fprintf(&b, "%-10s", label)
	}
	return strings.TrimRight(b.String(), " ")
}
