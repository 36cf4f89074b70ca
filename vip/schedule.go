package vip

import "time"

// Schedule is when a claim is announced, counted from the claim. The first
// announcement moves all traffic. The early repeats are for frames lost in the
// crowd of a takeover and for a switch port or bond that starts to forward only
// now; those up to 5 s outlive a neighbour that locks its entry against changes
// (locktime, 1 s) and a host that was busy.
var Schedule = []time.Duration{
	0,
	100 * time.Millisecond,
	300 * time.Millisecond,
	1 * time.Second,
	2 * time.Second,
	5 * time.Second,
}

// Repeat follows the Schedule for as long as the VIP is held: a neighbour that was
// told otherwise, or a switch that forgot, is set right without being asked, at a
// cost of two frames.
const Repeat = 30 * time.Second

// AnnounceAt is when announcement n (from 0) is due after the claim.
func AnnounceAt(n int) time.Duration {
	if n < len(Schedule) {
		return Schedule[n]
	}
	last := len(Schedule) - 1
	return Schedule[last] + time.Duration(n-last)*Repeat
}
