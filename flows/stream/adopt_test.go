package stream_test

import (
	"fmt"
	"testing"

	"github.com/sallyport/sallyport/flows"
)

// A holder that was elected again has not what began at the one between. A standby that has
// it gives it first; what ended there ends, what began at the holder meanwhile does not.
func TestAStandbyGivesWhatTheHolderLacks(t *testing.T) {
	for _, whole := range []bool{true, false} {
		t.Run(fmt.Sprintf("whole %t", whole), func(t *testing.T) {
			h := hold(t, ring(t, "a"), 3)
			for n := range 2999 {
				h.table.has[flow(n).Key] = flow(n)
			}
			h.change(flows.Put, 2999) // since it was elected
			a := follower(h, "a", 3, h.ring)
			a.Have, a.Whole = flows.Position{Term: 2, Seq: 5}, whole
			for n := 1000; n < 2999; n++ {
				a.table.has[flow(n).Key] = flow(n)
			}
			for n := 5000; n < 6000; n++ {
				a.table.has[flow(n).Key] = flow(n)
			}
			a.run(t)
			await(t, a.equals(h))
			has := h.table.copy()
			for n, want := range map[int]bool{0: !whole, 999: !whole, 1000: true, 2999: true, 5000: true, 5999: true} {
				if _, is := has[flow(n).Key]; is != want {
					t.Errorf("flow %d is there: %t, want %t", n, is, want)
				}
			}
			// What it had then is no news to who has heard of it.
			b := follower(h, "b", 3, h.ring)
			b.Have, b.table.has[flow(9999).Key] = flows.Position{Term: 2, Seq: 4}, flow(9999)
			b.run(t)
			await(t, b.equals(h))
			if _, is := h.table.copy()[flow(9999).Key]; is {
				t.Error("what only an older table has was taken over")
			}
			if got := b.Position(); got.Term != 3 {
				t.Errorf("in step, it says that it has %+v", got)
			}
		})
	}
}

// What takes another's place must not be taken for ended when the end of the other is told,
// and who follows already hears of what was taken over.
func TestWhatIsTakenOverIsToldToAll(t *testing.T) {
	h := hold(t, ring(t, "a"), 3)
	h.table.has[flow(1).Key] = flow(1)
	b := follow(t, h, "b", 3, h.ring)
	await(t, b.equals(h))
	a := follower(h, "a", 3, h.ring)
	a.Have, a.Whole = flows.Position{Term: 2, Seq: 5}, true
	other := flow(1)
	other.Port = 7777
	a.table.has[other.Key], a.table.has[flow(2).Key] = other, flow(2)
	a.run(t)
	for _, w := range []*following{a, b} {
		await(t, func() error {
			if err := w.equals(h)(); err != nil {
				return err
			}
			if got := w.table.copy(); got[other.Key].Port != 7777 || len(got) != 2 {
				return fmt.Errorf("%s has %v", w.Name, got)
			}
			return nil
		})
	}
	if err := h.table.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.change(flows.Put, 3)
	for _, w := range []*following{a, b} {
		await(t, func() error {
			if got := w.table.copy(); got[flow(3).Key] != flow(3) {
				return fmt.Errorf("%s has not got the latest yet", w.Name)
			}
			return nil
		})
		if _, is := w.table.copy()[other.Key]; !is {
			t.Errorf("at %s the end of what gave way was taken for that of what has its place", w.Name)
		}
	}
}
