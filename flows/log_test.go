package flows_test

import (
	"testing"
	"time"

	"github.com/sallyport/sallyport/flows"
)

func put(n int) flows.Change {
	return flows.Change{Op: flows.Put, Flow: flows.Flow{Key: simKey(n), Port: uint16(n), State: 3}}
}

func drain(t *testing.T, c *flows.Cursor) (changes []flows.Change) {
	t.Helper()
	for {
		b, ok := c.Next()
		if !ok {
			return changes
		}
		m, err := flows.Decode(b.Frame)
		if err != nil {
			t.Fatal(err)
		}
		changes = append(changes, m.Changes...)
	}
}

func TestOneBatchHasTheLatestOfEachFlow(t *testing.T) {
	l := flows.NewLog(1, 1<<20, 0)
	c := l.Follow()
	c.Rewind()
	gone := func(n int) flows.Change { return flows.Change{Op: flows.Delete, Flow: put(n).Flow} }
	for _, change := range []flows.Change{put(1), gone(1), put(2), put(2), gone(3), put(3), put(3)} {
		l.Add(0, change)
	}
	l.Seal()
	got := drain(t, c)
	want := map[uint16]flows.Op{1: flows.Delete, 2: flows.Put, 3: flows.Replace}
	if len(got) != len(want) {
		t.Fatalf("%d changes are sent, want %d", len(got), len(want))
	}
	for _, g := range got {
		if n := g.Flow.SrcPort - 1000; g.Op != want[n] {
			t.Errorf("flow %d is sent as %d, want %d", n, g.Op, want[n])
		}
	}
}

// A standby that reads nothing costs the limit and no more, and the others nothing.
func TestALaggardIsCutToASnapshot(t *testing.T) {
	const limit = 4 << 10
	l := flows.NewLog(1, limit, 0)
	slow, fast := l.Follow(), l.Follow()
	slow.Rewind()
	fast.Rewind()
	for n := range 10000 {
		l.Add(time.Duration(n), put(n%200))
		l.Seal()
		b, ok := fast.Next()
		if !ok {
			t.Fatalf("the fast standby misses batch %d", n)
		}
		fast.Ack(b.Seq)
		if l.Bytes() > limit {
			t.Fatalf("%d bytes are kept, want at most %d", l.Bytes(), limit)
		}
	}
	if !slow.Lost() || fast.Lost() {
		t.Errorf("lost: the slow standby %t, the fast one %t", slow.Lost(), fast.Lost())
	}
	if _, ok := slow.Next(); ok {
		t.Error("a standby with a gap gets a batch")
	}
	slow.Close()
	if l.Bytes() != 0 {
		t.Errorf("%d bytes are kept for nobody", l.Bytes())
	}
}

func TestLagRunsFromTheChangeToItsAcknowledgement(t *testing.T) {
	l := flows.NewLog(1, 1<<20, 0)
	c := l.Follow()
	begin := c.Rewind()
	if c.CaughtUp() {
		t.Error("caught up before the snapshot has arrived")
	}
	c.Whole(begin.Seq)
	if !c.CaughtUp() || c.Lag(time.Hour) != 0 {
		t.Errorf("with nothing to tell: caught up %t, lag %v", c.CaughtUp(), c.Lag(time.Hour))
	}
	for at := range time.Duration(3) {
		l.Add(at*time.Second, put(int(at)))
		if at > 0 {
			l.Seal()
		}
	}
	if got := c.Lag(10 * time.Second); got != 10*time.Second || c.CaughtUp() {
		t.Errorf("lag %v, caught up %t", got, c.CaughtUp())
	}
	for range 2 {
		c.Next()
	}
	if done := c.Ack(begin.Seq); len(done) != 1 || done[0].Changes != 2 || c.Lag(10*time.Second) != 8*time.Second {
		t.Errorf("acknowledged %+v, lag %v; want one batch of 2, then 8 s", done, c.Lag(10*time.Second))
	}
	if done := c.Ack(begin.Seq + 5); done != nil {
		t.Errorf("what was not sent is acknowledged: %+v", done)
	}
	if done := c.Ack(begin.Seq + 1); len(done) != 1 || !c.CaughtUp() || c.Lag(10*time.Second) != 0 {
		t.Errorf("acknowledged %+v, caught up %t, lag %v", done, c.CaughtUp(), c.Lag(10*time.Second))
	}
}

func TestAGapIsNoticed(t *testing.T) {
	s := flows.NewStandby(3)
	nothing := func() ([]flows.Flow, error) { return nil, nil }
	for _, m := range []flows.Message{{Kind: flows.Begin, Term: 3, Seq: 5}, {Kind: flows.End, Term: 3, Seq: 5}, {Kind: flows.Changes, Term: 3, Seq: 5}} {
		if _, err := s.Step(m, nothing); err != nil {
			t.Fatal(err)
		}
	}
	for name, m := range map[string]flows.Message{
		"a batch is missing": {Kind: flows.Changes, Term: 3, Seq: 7},
		"a batch again":      {Kind: flows.Changes, Term: 3, Seq: 5},
		"an earlier term":    {Kind: flows.Changes, Term: 2, Seq: 6},
		"no snapshot begun":  {Kind: flows.Snapshot, Term: 3},
	} {
		if _, err := s.Step(m, nothing); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}
