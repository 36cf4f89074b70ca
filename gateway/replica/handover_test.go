package replica

import (
	"context"
	"testing"
	"time"

	"github.com/sallyport/sallyport/election"
)

// An heir that has not said lately that it would hold is asked while packets wait, rather than
// that they are lost. One that would not is not given the VIP.
func TestAnHeirIsAskedAgain(t *testing.T) {
	names, _, elected := group(t, election.Timing{Lease: 2 * time.Second, Heartbeat: 100 * time.Millisecond, Margin: 20 * time.Millisecond, Spread: 100 * time.Millisecond})
	holder := func() string {
		for _, name := range names {
			if elected[name].state(one.Addr).Role == election.Holder {
				return name
			}
		}
		return ""
	}
	var first string
	eventually(t, "a holder", func() bool { first = holder(); return first != "" })
	heir, other := names[0], names[1]
	if heir == first {
		heir, other = other, names[2]
	} else if other == first {
		other = names[2]
	}
	elected[other].bar(one.Addr, "of the test")
	refused, cancel := context.WithTimeout(t.Context(), 10*offered)
	defer cancel()
	if err := elected[first].handOver(refused, one.Addr, other); err == nil {
		t.Errorf("%s, which may not hold, was given the VIP", other)
	}
	if now := holder(); now != first {
		t.Errorf("%s holds, %s did", now, first)
	}
	// What it said while the other was asked is to be too old.
	elected[heir].bar(one.Addr, "of the test")
	eventually(t, "what was said before is too old", func() bool { return len(elected[first].state(one.Addr).Willing) == 0 })
	elected[heir].ask(func(now time.Duration) election.Ready {
		return elected[heir].machine.SetEligible(now, one.Addr.String(), true, "")
	})
	if err := elected[first].handOver(t.Context(), one.Addr, heir); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the heir holds", func() bool { return holder() == heir })
}
