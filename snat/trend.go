package snat

import (
	"net/netip"
	"slices"
	"time"
)

// TrendOver is how far back a Trend looks: long enough that a burst is not taken for
// growth, short enough to warn of a leak that has just begun.
const TrendOver = 10 * time.Minute

// least is how many counts make a trend.
const least = 4

// Trend tells from earlier counts how fast ports are being used up. It remembers the
// destinations that it was last told of, and no others.
type Trend struct{ seen map[trended][]count }

type trended struct {
	vip   netip.Addr
	to    Destination
	first uint16 // of the range
}

type count struct {
	at   time.Duration
	used int
}

// Forecast is what becomes of a PortUse.
type Forecast struct {
	PortUse
	// Growth in ports per second, negative where they become free.
	Growth float64
	// Left until none is free should it go on like this; below zero: it will not come to that.
	Left time.Duration
}

// Never is the Left of ports that are not being used up.
const Never = time.Duration(-1)

// Note takes the counts of one time, on a clock of the caller's, by VIP.
func (t *Trend) Note(now time.Duration, uses map[netip.Addr][]PortUse) map[netip.Addr][]Forecast {
	seen, out := map[trended][]count{}, make(map[netip.Addr][]Forecast, len(uses))
	for vip, list := range uses {
		for _, u := range list {
			key := trended{vip, u.Destination, u.Range.First}
			counts := slices.Concat(t.seen[key], []count{{now, u.Used}})
			for counts[0].at < now-TrendOver {
				counts = counts[1:]
			}
			seen[key] = counts
			out[vip] = append(out[vip], forecast(u, counts))
		}
	}
	t.seen = seen
	return out
}

func forecast(u PortUse, counts []count) Forecast {
	f := Forecast{PortUse: u, Growth: slope(counts), Left: Never}
	free := u.Usable - u.Used
	if free <= 0 {
		f.Left = 0
	} else if f.Growth > 0 {
		// Far beyond a year the sum no longer fits.
		f.Left = time.Duration(min(float64(free)/f.Growth, (365*24*time.Hour).Seconds()) * float64(time.Second))
	}
	return f
}

// slope of the line that fits the counts best.
func slope(counts []count) float64 {
	if len(counts) < least {
		return 0
	}
	var t, n float64
	for _, c := range counts {
		t, n = t+c.at.Seconds(), n+float64(c.used)
	}
	t, n = t/float64(len(counts)), n/float64(len(counts))
	var rise, run float64
	for _, c := range counts {
		dt := c.at.Seconds() - t
		rise, run = rise+dt*(float64(c.used)-n), run+dt*dt
	}
	if run == 0 {
		return 0
	}
	return rise / run
}
