package replica

import "time"

const (
	claimFirst = 50 * time.Millisecond
	claimMost  = time.Second
	// claimPatience is how long a holder tries before it lets another: the VIP has been
	// silent for that long already.
	claimPatience = time.Second
	barFirst      = 2 * time.Second
	barMost       = time.Minute
)

// attempts are the claims of one VIP that failed in a row, over as many leases as it
// takes. All times are of one clock that never goes back.
type attempts struct {
	begun time.Duration // of this lease's first failure
	next  time.Duration // not before
	pause time.Duration // between the last try and the next; 0: none failed on this lease
	bar   time.Duration // how long this replica stood back the last time
}

// due tells whether to try now.
func (a *attempts) due(now time.Duration) bool { return a.pause == 0 || now >= a.next }

// fail notes a try that failed. When patience is at its end, it says for how long this
// replica is to stand back, each time longer; else 0.
func (a *attempts) fail(now time.Duration) (bar time.Duration) {
	if a.pause == 0 {
		a.begun, a.pause = now, claimFirst
	} else {
		a.pause = min(2*a.pause, claimMost)
	}
	a.next = now + a.pause
	return a.patience(now)
}

// hang notes that a try has not returned since. It answers as fail does.
func (a *attempts) hang(now, since time.Duration) (bar time.Duration) {
	if a.pause == 0 {
		a.begun, a.pause = since, claimFirst
	}
	return a.patience(now)
}

func (a *attempts) patience(now time.Duration) time.Duration {
	if now-a.begun < claimPatience {
		return 0
	}
	return a.giveUp(now)
}

// giveUp is for how long to stand back.
func (a *attempts) giveUp(now time.Duration) time.Duration {
	a.begun = now // said once, though the lease may take a moment to end
	a.bar = min(max(barFirst, 2*a.bar), barMost)
	return a.bar
}

// over ends a lease: the next one begins with a try at once.
func (a *attempts) over() { a.pause = 0 }
