package replica

import (
	"slices"
	"testing"
	"time"
)

// lease plays one that lasts for a time, looked at every 10 ms as heartbeats do, in
// which every claim fails. It gives when it was tried, and when and how long to stand back.
func (a *attempts) lease(from, lasts time.Duration) (tried []time.Duration, back map[time.Duration]time.Duration) {
	back = map[time.Duration]time.Duration{}
	for now := from; now < from+lasts; now += 10 * time.Millisecond {
		if !a.due(now) {
			continue
		}
		tried = append(tried, now-from)
		if bar := a.fail(now); bar > 0 {
			back[now-from] = bar
		}
	}
	a.over()
	return tried, back
}

func TestAFailedClaimIsTriedMoreAndMoreRarely(t *testing.T) {
	var a attempts
	tried, _ := a.lease(time.Hour, 4*time.Second)
	ms := time.Millisecond
	if want := []time.Duration{0, 50 * ms, 150 * ms, 350 * ms, 750 * ms, 1550 * ms, 2550 * ms, 3550 * ms}; !slices.Equal(tried, want) {
		t.Errorf("tried after %v, want %v", tried, want)
	}
}

func TestAReplicaThatCannotClaimStandsBackLongerAndLonger(t *testing.T) {
	var a attempts
	now := time.Hour
	for _, want := range []time.Duration{2, 4, 8, 16, 32, 60, 60} {
		tried, back := a.lease(now, 2*time.Second)
		if tried[0] != 0 {
			t.Errorf("a new lease is first tried after %v, want at once", tried[0])
		}
		if len(back) != 1 || back[tried[len(tried)-1]] != want*time.Second {
			t.Errorf("stands back %v, want once, for %v", back, want*time.Second)
		}
		now += time.Hour
	}
}

func TestAShortTroubleDoesNotCostTheLease(t *testing.T) {
	var a attempts
	for i := range 20 {
		if _, back := a.lease(time.Duration(i)*time.Hour, 900*time.Millisecond); len(back) != 0 {
			t.Fatalf("stands back %v within its patience", back)
		}
	}
}
