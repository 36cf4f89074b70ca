package replica

import (
	"errors"
	"time"

	"github.com/sallyport/sallyport/vip"
	"github.com/sallyport/sallyport/vip/layer2"
)

// post is one VIP of a keeper. All times are of CLOCK_BOOTTIME.
type post struct {
	vip    vip.VIP
	until  time.Duration // of the lease; 0: there is none
	opened time.Duration // until when the fence lets it speak

	refused  error // why the fence is not renewed; nil: it is
	deadline time.Duration
	refusals attempts

	held  bool // its address is in place, or half: it is to be taken off after the lease
	again bool // its address is to be put back
	// withdrawn is its address on purpose, while it is held.
	withdrawn bool
	// busy with its address since began.
	busy   bool
	began  time.Duration
	failed string    // why the last claim failed
	tries  *attempts // nil: it did not
}

// renewed notes what became of a renewal, and tells whether it is a new trouble.
func (p *post) renewed(until time.Duration, err error) (fresh bool) {
	switch {
	case err == nil:
		// Behind a fence that was shut the address may have been taken off.
		p.again = p.again || p.held && p.refused != nil
		p.opened, p.refused, p.refusals = until, nil, attempts{}
	case errors.Is(err, layer2.ErrTooLate): // the lease is as good as over
	case p.refused == nil:
		// From the end of this lease on it could be another's.
		p.refused, p.deadline = err, until
		return true
	default:
		p.refused = err
	}
	return false
}

// hopeless tells why and for how long another replica is to be let: the lease goes on,
// and the kernel does not follow.
func (p *post) hopeless(now time.Duration) (why string, pause time.Duration) {
	if p.until <= now {
		p.refused = nil
		if p.tries != nil {
			p.tries.over()
		}
		return "", 0
	}
	if p.refused != nil && now >= p.deadline {
		p.deadline = now + claimPatience // said once, though the lease may take a moment to end
		return p.refused.Error(), p.refusals.giveUp(now)
	}
	if p.busy && now-p.began >= claimPatience {
		if p.tries == nil {
			p.tries = &attempts{}
		}
		return hangs, p.tries.hang(now, p.began)
	}
	return "", 0
}

const hangs = "the kernel has not answered for a second to have its address put on or taken off (rtnetlink): look into the kernel's log of this host"

// wantsClaim tells whether its address is to be put in place now. Without the fence
// open it is not: it would not be heard.
func (p *post) wantsClaim(now time.Duration) bool {
	if p.until <= now || p.opened <= now {
		return false
	}
	return !p.held || p.again || p.tries != nil && p.tries.due(now)
}

// begin makes it busy with its address. Held even when it fails half way: what was
// done must be undone.
func (p *post) begin(now time.Duration) {
	p.busy, p.began, p.held, p.again, p.withdrawn = true, now, true, false, false
}

// claimed notes what became of a claim: whether it is a new trouble, or none after
// one, and how long to stand back.
func (p *post) claimed(now time.Duration, err error) (fresh, after bool, pause time.Duration) {
	p.busy = false
	if err == nil {
		after = p.tries != nil
		p.tries, p.failed = nil, ""
		return false, after, 0
	}
	fresh = p.failed != err.Error()
	p.failed = err.Error()
	if p.tries == nil {
		p.tries = &attempts{}
	}
	return fresh, false, p.tries.fail(now)
}

// trouble is why it is leased and not in place.
func (p *post) trouble(now time.Duration) string {
	switch {
	case p.refused != nil:
		return p.refused.Error()
	case p.failed != "":
		return p.failed
	case p.until > now && p.busy && now-p.began >= claimPatience:
		return hangs
	}
	return ""
}
