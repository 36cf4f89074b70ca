package vip

import "time"

const (
	// DefendInterval is how often an address is defended at most: RFC 5227, section 1.1.
	DefendInterval = 10 * time.Second
	// Moving is for how long after a claim a word of another host may be the last
	// holder's: what was said first is heard last on a busy segment or machine.
	Moving = time.Second
)

// Defence is how a holder meets other hosts that claim its VIP: by RFC 5227, section
// 2.4 (c), it goes on holding, for partners depend on it, and says so once in
// each DefendInterval, so that two that defend do not fill the segment.
type Defence struct {
	last time.Duration
	said bool
}

// Heard judges a claim heard now, of a VIP held here since: whether it is another
// host's, and whether to announce the VIP. Answered is a claim that answers a probe sent after
// our own: the last holder is silent by then, so that it is a foreign host's even while
// the VIP moves.
func (d *Defence) Heard(now, since time.Duration, answered bool) (foreign, announce bool) {
	if now-since < Moving && !answered {
		return false, false
	}
	if d.said && now-d.last < DefendInterval {
		return true, false
	}
	d.last, d.said = now, true
	return true, true
}
