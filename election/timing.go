package election

import (
	"errors"
	"fmt"
	"time"
)

// Timing is how fast a group notices the loss of a holder. Every member must use
// the same; messages of one that does not are ignored, and Problems names it.
type Timing struct {
	// Lease is how long a voter keeps its promise, by its own clock. The crash of
	// a holder is mended one Lease after its last heartbeat; a pause of a healthy
	// holder that is longer than its share of it is a failover.
	Lease time.Duration `cbor:"1,keyasint"`
	// Heartbeat is how often a holder asks for renewal. Three must fit into what
	// is left of a Lease after drift and margin, so that two may be lost.
	Heartbeat time.Duration `cbor:"2,keyasint"`
	// Margin is how much earlier a holder's lease ends than the clocks alone ask
	// for. The kernel's fence expires on a jiffy (4 ms at HZ=250) and may be one
	// late; with a smaller margin than that, two may hold for as long.
	Margin time.Duration `cbor:"3,keyasint"`
	// Spread is the head start of each standby over the one ranked after it, so
	// that normally one stands alone. It must exceed a round trip.
	Spread time.Duration `cbor:"4,keyasint"`
	// Drift is how far the rate of any member's clock may be from true time, as a
	// fraction. The kernel slews by at most 0.0005 (MAXFREQ, include/linux/timex.h).
	Drift float64 `cbor:"5,keyasint"`
}

// Profiles are the timings that have names. Fast is for one quiet segment and
// raised priority: there a scheduling delay of 15 ms is a failover.
var Profiles = map[string]Timing{
	"default": {Lease: 100 * time.Millisecond, Heartbeat: 20 * time.Millisecond, Margin: 8 * time.Millisecond, Spread: 10 * time.Millisecond, Drift: 0.001},
	"fast":    {Lease: 30 * time.Millisecond, Heartbeat: 7 * time.Millisecond, Margin: 8 * time.Millisecond, Spread: 3 * time.Millisecond, Drift: 0.001},
	"wan":     {Lease: 5 * time.Second, Heartbeat: time.Second, Margin: 20 * time.Millisecond, Spread: 500 * time.Millisecond, Drift: 0.001},
}

// Span is how long a holder may act on a promise, by its own clock, counted from
// when it asked for it. With rates within 1±d a promise of Lease lasts at least
// Lease/(1+d) of true time, and a span s at most s/(1-d); Lease·(1-2d) satisfies
// s/(1-d) ≤ Lease/(1+d), so that promises themselves need no stretching.
func (t Timing) Span() time.Duration {
	return t.Lease - time.Duration(2*t.Drift*float64(t.Lease)) - t.Margin
}

// Validate joins everything that is wrong.
func (t Timing) Validate() error {
	var errs []error
	refuse := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if t.Lease < time.Millisecond || t.Lease > time.Minute {
		refuse("lease %v: must be between 1ms and 1m", t.Lease)
	}
	if t.Heartbeat <= 0 {
		refuse("heartbeat %v: must be more than zero", t.Heartbeat)
	}
	if t.Margin < 0 {
		refuse("margin %v: must not be negative", t.Margin)
	}
	if t.Spread <= 0 || t.Spread > t.Lease {
		refuse("spread %v: must be more than zero and at most the lease (%v)", t.Spread, t.Lease)
	}
	if !(t.Drift >= 0 && t.Drift <= 0.1) {
		refuse("drift %v: must be between 0 and 0.1", t.Drift)
	} else if t.Heartbeat > 0 && t.Span()/3 < t.Heartbeat {
		refuse("lease %v with margin %v: leaves %v, less than three heartbeats of %v", t.Lease, t.Margin, t.Span(), t.Heartbeat)
	}
	return errors.Join(errs...)
}

func (t Timing) String() string {
	return fmt.Sprintf("lease %v, heartbeat %v, margin %v, spread %v, drift %v", t.Lease, t.Heartbeat, t.Margin, t.Spread, t.Drift)
}
