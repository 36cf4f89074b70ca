package flows_test

import (
	"testing"

	"github.com/sallyport/sallyport/flows"
)

// Three members, of which the second is elected before it had caught up with the first:
// what it lacks lives on in the third.
func TestHolderThatHadNotCaughtUpEndsNothing(t *testing.T) {
	has := []flows.Flow{{Key: simKey(1), Port: 1}, {Key: simKey(2), Port: 2}}
	for _, whole := range []bool{true, false} {
		l := flows.NewLog(2, 1<<20)
		l.Whole = whole
		c, standby := l.Follow(), flows.NewStandby(1)
		own := func() ([]flows.Flow, error) { return has, nil }
		begin := c.Rewind()
		part := flows.Message{Kind: flows.Snapshot, Term: 2, Changes: []flows.Change{{Op: flows.Put, Flow: has[0]}}}
		ended := 0
		for _, m := range []flows.Message{begin, part, c.End()} {
			arrived, err := flows.Decode(flows.Encode(m))
			if err != nil {
				t.Fatal(err)
			}
			changes, err := standby.Step(arrived, own)
			if err != nil {
				t.Fatal(err)
			}
			for _, ch := range changes {
				if ch.Op == flows.Delete {
					ended++
				}
			}
			if back := standby.Answer(arrived); back.Kind == arrived.Kind {
				c.Whole(back.Seq)
			}
		}
		if want := map[bool]int{true: 1, false: 0}[whole]; ended != want {
			t.Errorf("caught up %t: %d connections ended that the holder lacks, want %d", whole, ended, want)
		}
		if !standby.Synced() || !c.CaughtUp() {
			t.Errorf("caught up %t: the standby is not in step afterwards", whole)
		}
	}
}
