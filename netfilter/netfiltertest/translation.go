package netfiltertest

import (
	"net/netip"
	"strings"
	"testing"

	nf "github.com/sallyport/sallyport/netfilter"
)

// snat checks the source that the server sees, and its port.
func (s Suite) snat(t *testing.T) {
	l := newLab(t, s)
	udps, tcps := nf.Protocols{"udp"}, nf.Protocols{"tcp"}
	from := func(pod string, proto nf.Protocols, ports nf.Ports) nf.Match {
		return nf.Match{Out: "out0", Src: netip.MustParseAddr(pod), Protocol: proto, SrcPorts: ports}
	}
	to := netip.MustParseAddr(vip)
	low, high := nf.Ports{First: 1024, Last: 29999}, nf.Ports{First: 32768, Last: 65535}
	var rules []nf.Rule
	for _, proto := range []nf.Protocols{udps, tcps} {
		rules = append(rules,
			nf.Rule{Match: from(pods[0], proto, nf.Ports{Last: 29999}), Action: nf.SNAT{To: to, Ports: low}},
			nf.Rule{Match: from(pods[0], proto, nf.Ports{}), Action: nf.SNAT{To: to, Ports: high}})
	}
	rules = append(rules, nf.Rule{Match: from(pods[1], nil, nf.Ports{}), Action: nf.SNAT{To: to}})
	l.apply(nf.Table{Name: tableName, Chains: []nf.Chain{{Name: "source", Hook: nf.PostroutingNAT, Rules: rules}}})

	for _, c := range []struct {
		src         string
		sport       int
		first, last uint16
	}{
		{pods[0], 5000, 5000, 5000},
		{pods[0], 40000, 40000, 40000},
		{pods[0], 30080, 32768, 65535}, // a NodePort: replies to it would be a Service's
		{pods[0], 32767, 32768, 65535},
		{pods[0], 29999, 29999, 29999},
		{pods[0], 500, 1024, 29999},
		{pods[1], 30080, 30080, 30080},
	} {
		for _, network := range []string{"udp", "tcp"} {
			talk, err := l.dial(network, c.src, c.sport, servers[0]+":443")
			if err != nil {
				t.Fatal(err)
			}
			seen := talk.must("out").seen
			if seen.Addr() != to || seen.Port() < c.first || seen.Port() > c.last {
				t.Errorf("%s %s:%d is seen as %s, want %s with port %d-%d", network, c.src, c.sport, seen, to, c.first, c.last)
			}
		}
	}
	l.ping(pods[1], servers[0])
	if seen := l.via("out", "udp", pods[2], servers[0]+":443").seen.Addr(); seen != netip.MustParseAddr(pods[2]) {
		t.Errorf("a source of no rule is seen as %s", seen)
	}
	t.Run("two pods with one port", func(t *testing.T) {
		a, err := l.dial("udp", pods[0], 6000, servers[1]+":443")
		if err != nil {
			t.Fatal(err)
		}
		b, err := l.dial("udp", pods[1], 6000, servers[1]+":443")
		if err != nil {
			t.Fatal(err)
		}
		if x, y := a.must("out").seen, b.must("out").seen; x == y {
			t.Errorf("both are seen as %s", x)
		}
	})
	if s.NoIPv6 {
		return
	}
	t.Run("IPv6", func(t *testing.T) {
		m := nf.Match{Out: "out0", Protocol: udps}
		l.apply(nf.Table{Name: tableName, IPv6: true, Chains: []nf.Chain{{Name: "source", Hook: nf.PostroutingNAT, Rules: []nf.Rule{
			{Match: m, Action: nf.SNAT{To: netip.MustParseAddr(vip6), Ports: low}},
			{Match: nf.Match{Out: "out0"}, Action: nf.SNAT{To: netip.MustParseAddr(vip6)}},
		}}}})
		for _, network := range []string{"udp", "tcp"} {
			if seen := l.via("out", network, pods6[0], "["+server6+"]:443").seen.Addr(); seen != netip.MustParseAddr(vip6) {
				t.Errorf("%s is seen as %s", network, seen)
			}
		}
	})
}

// masquerade checks that another's masquerade at priority 100, made before or
// after our rules, finds the connection bound already.
func (s Suite) masquerade(t *testing.T) {
	for _, rival := range []struct{ name, command string }{
		{"iptables-nft", "iptables-nft -t nat -A POSTROUTING -s 10.244.0.0/16 -j MASQUERADE"},
		{"iptables-legacy", "iptables-legacy -t nat -A POSTROUTING -s 10.244.0.0/16 -j MASQUERADE"},
		{"nft", "nft add table ip cni ; add chain ip cni post { type nat hook postrouting priority 100 ; } ; add rule ip cni post ip saddr 10.244.0.0/16 masquerade"},
	} {
		for _, when := range []string{"before", "after"} {
			name := rival.name + " " + when
			t.Run(name, func(t *testing.T) {
				l := newLab(t, s)
				command := strings.Fields(rival.command)
				if when == "before" {
					l.run(l.router, command[0], command[1:]...)
				}
				l.apply(nf.Table{Name: tableName, Chains: []nf.Chain{{Name: "keep", Hook: nf.PostroutingNAT, Rules: []nf.Rule{
					{Match: nf.Match{Src: netip.MustParseAddr(pods[0])}, Action: nf.KeepSource{}},
					{Match: nf.Match{Src: netip.MustParseAddr(pods[1])}, Action: nf.SNAT{To: netip.MustParseAddr(vip)}},
				}}}})
				if when == "after" {
					l.run(l.router, command[0], command[1:]...)
				}
				won := true
				for src, want := range map[string]string{pods[0]: pods[0], pods[1]: vip} {
					for _, network := range []string{"udp", "tcp"} {
						seen := l.via("out", network, src, servers[0]+":443").seen.Addr()
						if seen != netip.MustParseAddr(want) {
							won = false
							t.Logf("%s of %s is seen as %s, want %s", network, src, seen, want)
						}
					}
				}
				if won == s.LosesTo[name] {
					t.Errorf("won against the masquerade: %t, want %t", won, !s.LosesTo[name])
				}
				if seen := l.via("out", "udp", pods[2], servers[0]+":443").seen.Addr(); seen != netip.MustParseAddr("198.18.0.1") {
					t.Errorf("what is not ours is seen as %s, want it masqueraded", seen)
				}
			})
		}
	}
}

// clampMSS checks the MSS that arrives where the way out is narrower than the ends.
func (s Suite) clampMSS(t *testing.T) {
	l := newLab(t, s)
	l.batch(l.router, "link set out0 mtu 1400")
	dial := func() int {
		c, err := l.dial("tcp", pods[0], 0, servers[0]+":443")
		if err != nil {
			t.Fatal(err)
		}
		_, mss, err := c.ask(patience)
		if err != nil {
			t.Fatal(err)
		}
		return mss
	}
	if mss := dial(); mss != 1460 {
		t.Fatalf("without the rule the MSS is %d, want 1460", mss)
	}
	l.apply(nf.Table{Name: tableName, Chains: []nf.Chain{{Name: "clamp", Hook: nf.ForwardMangle, Rules: []nf.Rule{
		{Match: nf.Match{Out: "out0", Protocol: nf.Protocols{"tcp"}}, Action: nf.ClampMSS{}},
	}}}})
	if mss := dial(); mss != 1360 {
		t.Errorf("the MSS is %d, want 1360", mss)
	}
}

// zone checks that a connection is tracked in the zone it was put in.
func (s Suite) zone(t *testing.T) {
	l := newLab(t, s)
	l.apply(nf.Table{Name: tableName, Chains: []nf.Chain{
		{Name: "raw", Hook: nf.PreroutingRaw, Rules: []nf.Rule{
			{Match: nf.Match{In: "pods0", Src: netip.MustParseAddr(pods[0])}, Action: nf.Zone{ID: 7}},
			{Match: nf.Match{In: "out0", Dst: netip.MustParseAddr(pods[0])}, Action: nf.Zone{ID: 7}},
			{Match: nf.Match{In: "pods0", Src: netip.MustParseAddr(pods[1])}, Action: nf.NoTrack{}},
			{Match: nf.Match{In: "out0", Dst: netip.MustParseAddr(pods[1])}, Action: nf.NoTrack{}},
		}},
		// Something has to ask for connections to be tracked at all.
		{Name: "ask", Hook: nf.ForwardFilter, Rules: []nf.Rule{{Match: nf.Match{State: nf.Invalid}}}},
	}})
	for _, p := range pods[:3] {
		l.via("out", "udp", p, servers[0]+":443")
	}
	for _, c := range []struct {
		args string
		want map[string]bool
	}{
		{"-L -p udp -w 7", map[string]bool{pods[0]: true}},
		{"-L -p udp -w 0", map[string]bool{pods[2]: true}},
	} {
		list := l.run(l.router, "conntrack", strings.Fields(c.args)...)
		for _, p := range pods[:3] {
			if got := strings.Contains(list, "src="+p+" "); got != c.want[p] {
				t.Errorf("conntrack %s lists %s: %t, want %t", c.args, p, got, c.want[p])
			}
		}
	}
}
