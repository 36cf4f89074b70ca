package replica

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/election/gossip"
)

func TestElectors(t *testing.T) {
	list := strings.Fields
	for _, c := range []struct {
		name       string
		members    []string
		join       []string
		replicas   int
		has, hasNo string // NAME@ADDRESS of others
		err        string // part of it
	}{
		{"all addresses", nil, list("192.0.2.1 192.0.2.2:7964 192.0.2.3"), 3, "b@192.0.2.2 c@192.0.2.3 x@192.0.2.3", "b@192.0.2.4", ""},
		{"the others' addresses", nil, list("192.0.2.2 192.0.2.3"), 3, "b@192.0.2.2", "b@192.0.2.4", ""},
		{"one address to ask", nil, list("192.0.2.2"), 3, "b@192.0.2.2 c@192.0.2.9", "", ""},
		{"a host name", nil, list("192.0.2.1 gateway-2.example 192.0.2.3"), 3, "b@192.0.2.9", "", ""},
		{"alone", nil, nil, 1, "", "b@192.0.2.2", ""},
		{"more addresses than replicas", nil, list("192.0.2.1 192.0.2.2 192.0.2.3"), 2, "", "", "192.0.2.1 are 3 gateways where --replicas says 2"},
		{"as many, but not this one", nil, list("192.0.2.2 192.0.2.3 192.0.2.4"), 3, "", "", "are 4 gateways"},
		{"names, wherever they are", list("a b c"), list("192.0.2.2 192.0.2.3"), 3, "b@192.0.2.9 c@192.0.2.2", "x@192.0.2.2", ""},
		{"more addresses than names", list("c b a"), list("192.0.2.2 192.0.2.3 192.0.2.4"), 3, "b@192.0.2.9", "x@192.0.2.2", ""},
		{"too few names", list("a b"), nil, 3, "", "", "names 2 gateways where --replicas says 3"},
		{"too many names", list("a b c d"), nil, 3, "", "", "names 4 gateways where --replicas says 3"},
		{"a name twice", list("a b b"), nil, 3, "", "", "name each gateway once"},
		{"not this one's name", list("b c d"), nil, 3, "", "", "does not name this gateway, a"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := Config{
				NodeIP: netip.MustParseAddr("192.0.2.1"), Replicas: c.replicas, Members: c.members,
				Gossip: gossip.Config{Name: "a", Join: c.join},
			}
			e, err := cfg.electors()
			if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
				t.Fatalf("error %v, want %q", err, c.err)
			}
			has := func(who string) bool {
				name, addr, _ := strings.Cut(who, "@")
				return e.has(gossip.Message{From: name, Addr: netip.MustParseAddrPort(addr + ":7964")})
			}
			for _, who := range list(c.has) {
				if !has(who) {
					t.Errorf("%s has no vote", who)
				}
			}
			for _, who := range list(c.hasNo) {
				if has(who) {
					t.Errorf("%s has a vote", who)
				}
			}
		})
	}
}
