package replica

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/election/gossip"
)

func TestSeats(t *testing.T) {
	for _, c := range []struct {
		name     string
		join     []string
		replicas int
		seats    int    // 0: not known
		err      string // part of it
	}{
		{"all of them", []string{"192.0.2.1", "192.0.2.2:7964", "192.0.2.3"}, 3, 3, ""},
		{"the others", []string{"192.0.2.2", "192.0.2.3"}, 3, 3, ""},
		{"one to ask", []string{"192.0.2.2"}, 3, 0, ""},
		{"a name", []string{"192.0.2.1", "gateway-2.example", "192.0.2.3"}, 3, 0, ""},
		{"alone", nil, 1, 1, ""},
		{"more than the replicas", []string{"192.0.2.1", "192.0.2.2", "192.0.2.3"}, 2, 0, "192.0.2.1 are 3 gateways where --replicas says 2"},
		{"as many, but not this one", []string{"192.0.2.2", "192.0.2.3", "192.0.2.4"}, 3, 0, "are 4 gateways"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := Config{NodeIP: netip.MustParseAddr("192.0.2.1"), Replicas: c.replicas, Gossip: gossip.Config{Join: c.join}}
			seats, err := cfg.seats()
			if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
				t.Fatalf("error %v", err)
			}
			if len(seats) != c.seats {
				t.Errorf("seats %v", seats)
			}
		})
	}
}
