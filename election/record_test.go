package election

import (
	"testing"
	"time"
)

const ms = time.Millisecond

func TestRecordOfAFailover(t *testing.T) {
	r := NewRecord(0)
	if _, ok := r.Last(); ok {
		t.Error("a failover before there was a holder")
	}
	enter := func(at time.Duration, from, to, reason string, silent time.Duration) {
		r.Enter(Transition{From: from, To: to, Reason: reason, Silent: silent}, at)
	}
	enter(50*ms, "", "a", "it says so", 0)
	if _, ok := r.Last(); ok {
		t.Error("the first holder is no failover")
	}
	if got := r.Without(80 * ms); got != 50*ms {
		t.Errorf("%v without a holder, want 50ms", got)
	}
	enter(60*ms, "a", "a", "elected again in a newer term", 10*ms)
	if _, ok := r.Last(); ok {
		t.Error("a newer term is no failover")
	}
	enter(1000*ms, "a", "", "no heartbeat for a lease", 100*ms)
	if got := r.Without(1010 * ms); got != 60*ms {
		t.Errorf("%v without a holder, want 60ms", got)
	}
	enter(1020*ms, "", "b", "it says so", 0)
	want := Failover{From: "a", To: "b", Reason: "no heartbeat for a lease", Took: 120 * ms, At: 1020 * ms}
	if got, _ := r.Last(); got != want {
		t.Errorf("the failover is %+v, want %+v", got, want)
	}
	if got := r.Without(5 * time.Second); got != 70*ms {
		t.Errorf("%v without a holder, want 70ms", got)
	}
	enter(6000*ms, "b", "c", "it says so", 15*ms)
	want = Failover{From: "b", To: "c", Reason: "another took over", Took: 15 * ms, At: 6000 * ms}
	if got, _ := r.Last(); got != want {
		t.Errorf("the hand-over is %+v, want %+v", got, want)
	}
	if got := r.Without(7 * time.Second); got != 70*ms {
		t.Errorf("%v without a holder after a hand-over, want 70ms", got)
	}
}

func TestRecordOfALease(t *testing.T) {
	r := NewRecord(0)
	for i, c := range []struct {
		at, until, left time.Duration
		renewed         bool
	}{
		{10 * ms, 100 * ms, 0, false},
		{30 * ms, 120 * ms, 70 * ms, true},
		{118 * ms, 200 * ms, 2 * ms, true},
		{203 * ms, 0, -3 * ms, true},        // it ran out
		{300 * ms, 400 * ms, 0, false},      // won anew
		{350 * ms, 0, 0, false},             // given up
		{350 * ms, 0, 0, false},             // and still
		{500 * ms, 600 * ms, 0, false},      // once more
		{520 * ms, 620 * ms, 80 * ms, true}, // renewed
	} {
		if left, renewed := r.Lease(LeaseChange{Until: c.until}, c.at); left != c.left || renewed != c.renewed {
			t.Errorf("step %d: %v left, %t, want %v, %t", i, left, renewed, c.left, c.renewed)
		}
	}
}
