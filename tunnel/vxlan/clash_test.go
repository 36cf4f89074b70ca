package vxlan

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/tunnel"
)

func TestClashesAreNamed(t *testing.T) {
	cfg := tunnel.DefaultConfig()
	low := cfg.Marks.Value(1)
	down := cfg.TableBase + cfg.Marks.Down()
	for _, c := range []struct {
		theirs string // commands that make what another program has
		want   string // of the problem: object, flag; "" for none
	}{
		{"ip link add their0 type vxlan id 7 dstport 4793 dev eth0", "interface their0: --tunnel-port: .*4793"},
		{"ip link add their0 type vxlan id 51 dstport 4789 dev eth0", ""},
		{fmt.Sprintf("ip rule add pref 200 from 10.0.0.0/8 lookup %d", down), fmt.Sprintf("ip rule 200: fwmark 0x0/0x0 lookup %d: --table-base", down)},
		{fmt.Sprintf("ip rule add pref 200 from 10.0.0.0/8 lookup %d", down+1), ""},
		{"ip rule add pref 95 from 10.0.0.0/8 lookup 4242", "ip rule 95: fwmark 0x0/0x0 lookup 4242: --rule-priority"},
		{fmt.Sprintf("ip rule add pref 200 fwmark %#x/%#x lookup 4242", low, low), "ip rule 200: .*: --mark-mask"},
		{"ip rule add pref 200 fwmark 0/0xff00 lookup 4242", "ip rule 200: .*: --mark-mask"},
		{fmt.Sprintf("ip rule add pref 200 fwmark %#x lookup 4242", low|0x6c), "ip rule 200: .*: --mark-mask"},
		// AWS VPC CNI, Tailscale and a program that has one whole mark: clear of ours.
		{"ip rule add pref 1024 fwmark 0x80/0x80 lookup main", ""},
		{"ip rule add pref 5210 fwmark 0x80000/0xff0000 lookup main", ""},
		{"ip rule add pref 200 fwmark 0x6c lookup 4242", ""},
		{fmt.Sprintf("ip route add table %d 10.9.0.0/16 via 192.0.2.77; ip route add table %[1]d throw 10.8.0.0/16", down), fmt.Sprintf("routing table %d: --table-base: .*2 routes", down)},
		{fmt.Sprintf("ip route add table %d 10.9.0.0/16 via 192.0.2.77", down+1), ""},
	} {
		t.Run(c.theirs, func(t *testing.T) {
			host(t)
			a := applier(t, cfg)
			// What is ours is no clash.
			apply(t, a, up(t, cfg, vipA, vipB))
			apply(t, a, cfg.Downward(local, maps.All(pods(2))))
			shell(t, c.theirs)
			problems, err := a.Clashes()
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, p := range problems {
				got = append(got, p.String())
			}
			if c.want == "" {
				if len(got) > 0 {
					t.Errorf("named in vain: %q", got)
				}
				return
			}
			parts := strings.Split(c.want, ".*")
			if !slices.ContainsFunc(got, func(s string) bool {
				return strings.HasPrefix(s, parts[0]) && strings.Contains(s, parts[len(parts)-1])
			}) || len(got) != 1 {
				t.Errorf("got %q, want one like %q", got, c.want)
			}
		})
	}
}
