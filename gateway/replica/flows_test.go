package replica

import (
	"testing"
	"time"

	"github.com/sallyport/sallyport/election/gossip"
)

func TestStandbysFollowANewHolderInTurn(t *testing.T) {
	all := []gossip.Member{{Name: "c"}, {Name: "a"}, {}, {Name: "d"}, {Name: "b"}} // one is not known by name yet
	for holder, want := range map[string]map[string]int{
		"a": {"b": 0, "c": 1, "d": 2},
		"c": {"a": 0, "b": 1, "d": 2},
	} {
		for name, n := range want {
			m := &mirror{name: name, members: func() []gossip.Member { return all }}
			if got := m.turn(holder); got != followSoon+time.Duration(n)*followApart {
				t.Errorf("%s follows %s after %v, want %d before it", name, holder, got, n)
			}
		}
	}
}
