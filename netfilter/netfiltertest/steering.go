package netfiltertest

import (
	"net/netip"
	"testing"

	nf "github.com/sallyport/sallyport/netfilter"
)

// actions checks those that end or divert a packet's way through the rules.
func (s Suite) actions(t *testing.T) {
	l := newLab(t, s)
	count := func(m nf.Match, name string) nf.Rule { return nf.Rule{Match: m, Count: name} }
	to := func(server string) nf.Match { return nf.Match{In: "pods0", Dst: netip.MustParseAddr(server)} }
	udps := nf.Protocols{"udp"}
	b := masked(markB)
	l.apply(nf.Table{
		Name:     tableName,
		Counters: []string{"dropped", "behind", "behind_goto", "in_goto", "other_bits", "untracked_is_new", "early", "late", "kept", "b_packets", "never"},
		Chains: []nf.Chain{
			{Name: "raw", Hook: nf.PreroutingRaw, Rules: []nf.Rule{
				{Match: nf.Match{In: "pods0", Dst: netip.MustParseAddr(servers[3]), Protocol: udps, DstPort: 445}, Action: nf.NoTrack{}},
			}},
			{Name: "mangle", Hook: nf.PreroutingMangle, Rules: []nf.Rule{
				{Match: to(servers[0]), Count: "dropped", Action: nf.Drop{}},
				{Match: to(servers[1]), Action: nf.Return{}},
				{Match: to(servers[2]), Action: nf.Goto{Chain: "aside"}},
				count(nf.Match{In: "pods0", Dst: netip.MustParseAddr(servers[3]), State: nf.New}, "untracked_is_new"),
				count(to(servers[1]), "behind"),
				count(to(servers[2]), "behind_goto"),
				count(nf.Match{In: "pods0"}, "late"),
			}},
			{Name: "mangle-early", Hook: nf.PreroutingMangle, Early: true, Rules: []nf.Rule{
				count(nf.Match{In: "pods0"}, "early"),
				{Match: nf.Match{In: "pods0"}, Action: nf.SetMark(nf.Masked{Value: 0xab0000, Mask: 0xff0000})},
			}},
			{Name: "aside", Rules: []nf.Rule{
				{Count: "in_goto", Action: nf.SetMark(b)},
				{Action: nf.SetConnMark(nf.Masked{Value: 0x70000 | markB, Mask: 0xffff0000 | markMask})},
				count(nf.Match{Mark: &nf.Masked{Value: 0xab0000 | markB, Mask: 0xff0000 | markMask}}, "other_bits"),
				{Match: nf.Match{ConnMark: &b}, Action: nf.CountConnMark{Mask: 0xffff0000, Names: map[uint32]string{0x70000: "b_packets", 0x80000: "never"}}},
				{Action: nf.Return{}},
				count(nf.Match{}, "behind_goto"),
			}},
			{Name: "forward", Hook: nf.ForwardFilter, Rules: []nf.Rule{
				count(nf.Match{In: "pods0", Mark: &nf.Masked{Value: 0xab0000, Mask: 0xffffffff}}, "kept"),
			}},
		},
	})
	l.via("", "udp", pods[0], servers[0]+":443")
	l.via("out", "udp", pods[0], servers[1]+":443")
	l.via("b", "udp", pods[0], servers[2]+":443")
	l.via("out", "udp", pods[0], servers[3]+":445") // exempt from tracking
	l.via("out", "udp", pods[0], servers[3]+":444")
	l.expect(map[string]uint64{
		"dropped": 1, "behind": 0, "behind_goto": 0, "in_goto": 1, "other_bits": 1, "untracked_is_new": 1,
		"early": 5, "late": 2, "kept": 3, "b_packets": 1, "never": 0,
	})
}

// classification checks which target a packet finds.
func (s Suite) classification(t *testing.T) {
	l := newLab(t, s)
	excepted := target(markB, "203.0.113.0/24")
	excepted.Except = []netip.Prefix{netip.MustParsePrefix("203.0.113.9/32")}
	l.apply(steering(map[string]int{pods[0]: 0, pods[1]: 1, pods[2]: 2},
		[]nf.Target{ // class 0: every port, with an exception and a longer prefix inside
			excepted,
			target(markC, "203.0.113.128/25"),
		},
		[]nf.Target{ // class 1: by ports, and the ports before the one without
			target(markC, "203.0.113.0/24"),
			target(markB, "203.0.113.0/24", tcp(443, 444), udp(444, 444)),
		},
		[]nf.Target{ // class 2: the first of equals, and a wider prefix around an exception
			target(markB, "203.0.113.5/32", udp(443, 443)),
			target(markC, "203.0.113.5/32", udp(443, 8080)),
			target(markC, "0.0.0.0/0", tcp(0, 65535)),
		},
	))
	for _, c := range []struct{ way, network, src, dst string }{
		{"b", "udp", pods[0], servers[0] + ":443"},
		{"b", "tcp", pods[0], servers[0] + ":8080"},
		{"out", "udp", pods[0], servers[1] + ":443"},
		{"c", "tcp", pods[0], servers[2] + ":443"},
		{"out", "tcp", pods[0], servers[3] + ":443"},
		{"b", "tcp", pods[1], servers[0] + ":443"},
		{"b", "tcp", pods[1], servers[0] + ":444"},
		{"c", "tcp", pods[1], servers[0] + ":445"},
		{"c", "udp", pods[1], servers[0] + ":443"},
		{"b", "udp", pods[1], servers[0] + ":444"},
		{"b", "udp", pods[2], servers[0] + ":443"},
		{"c", "udp", pods[2], servers[0] + ":444"},
		{"c", "tcp", pods[2], servers[3] + ":443"},
		{"out", "udp", pods[2], servers[3] + ":443"},
		{"out", "tcp", pods[3], servers[0] + ":443"},
	} {
		l.via(c.way, c.network, c.src, c.dst)
	}

	t.Run("other protocols", func(t *testing.T) {
		before := l.counted(tableName)
		for _, ping := range []struct{ src, dst, way string }{
			{pods[0], servers[0], "by_b"}, {pods[0], servers[1], "selected"}, {pods[0], servers[2], "by_c"},
			{pods[1], servers[0], "by_c"}, {pods[2], servers[0], "selected"}, {pods[3], servers[0], "unselected"},
		} {
			l.ping(ping.src, ping.dst)
			before[ping.way]++
			l.expect(before)
		}
	})

	t.Run("others", func(t *testing.T) {
		table := steering(map[string]int{pods[0]: 0, pods[1]: 1}, nil, []nf.Target{target(markB, "203.0.113.0/24")})
		table.Chains[0].Rules = table.Chains[0].Rules[:6] // the rest counts sources of no class
		excepted := target(markC, "203.0.113.0/24", tcp(443, 444), udp(443, 443))
		excepted.Except = []netip.Prefix{netip.MustParsePrefix("203.0.113.9/32")}
		table.Classifiers[0].Others = []nf.Target{target(markC, "198.51.100.0/24"), excepted, target(markB, "203.0.113.130/32")}
		l.apply(table)
		check := func(others map[string]string) {
			for at, way := range others {
				for _, pod := range pods[2:] {
					l.via(way, "udp", pod, at)
				}
				l.via("out", "udp", pods[0], at)
			}
			l.via("b", "udp", pods[1], servers[1]+":443")
			l.via("out", "udp", pods[1], servers[3]+":443")
		}
		check(map[string]string{
			servers[0] + ":443": "c", servers[0] + ":444": "out", servers[1] + ":443": "out",
			servers[2] + ":443": "b", servers[3] + ":8080": "c",
		})
		l.via("c", "tcp", pods[2], servers[0]+":444")
		table.Classifiers[0].Others = []nf.Target{target(markB, "198.51.100.0/24")}
		l.apply(table)
		check(map[string]string{servers[0] + ":443": "out", servers[3] + ":443": "b"})
		table.Classifiers[0].Sources, table.Classifiers[0].Classes = nil, nil // nobody has a class of their own
		l.apply(table)
		l.via("b", "udp", pods[0], servers[3]+":443")
		l.apply(steering(map[string]int{pods[0]: 0}, []nf.Target{target(markB, "203.0.113.0/24")}))
		l.via("b", "udp", pods[0], servers[0]+":443")
		l.via("out", "udp", pods[2], servers[3]+":443")
	})

	if s.NoIPv6 {
		return
	}
	t.Run("IPv6", func(t *testing.T) {
		v6 := steering(map[string]int{pods6[0]: 0}, []nf.Target{
			target(markB, "2001:db8:5::/64", udp(443, 443)), target(markC, "2001:db8:5::5/128", tcp(1, 8000)),
		})
		v6.IPv6 = true
		l.apply(v6)
		l.via("b", "udp", pods6[0], "["+server6+"]:443")
		l.via("c", "tcp", pods6[0], "["+server6+"]:443")
		l.via("out", "udp", pods6[0], "["+server6+"]:444")
		l.via("out", "udp", pods6[1], "["+server6+"]:443")
		l.via("b", "udp", pods[0], servers[0]+":443") // the other family is as it was
	})
}

// keepsWay checks that a connection goes on as it began while its source leaves
// and joins, and that new connections follow at once.
func (s Suite) keepsWay(t *testing.T) {
	l := newLab(t, s)
	open := func(network, src string) *talk {
		c, err := l.dial(network, src, 0, servers[0]+":443")
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	selected := steering(map[string]int{pods[0]: 0}, []nf.Target{target(markB, "203.0.113.0/24")})
	l.apply(selected)
	var born, plain []*talk
	for _, network := range []string{"tcp", "udp"} {
		born, plain = append(born, open(network, pods[0])), append(plain, open(network, pods[1]))
	}
	for i := range born {
		born[i].must("b")
		plain[i].must("out")
	}
	l.apply(steering(map[string]int{pods[1]: 0}, []nf.Target{target(markC, "203.0.113.0/24")}))
	for i := range born {
		born[i].must("b")
		plain[i].must("out")
	}
	l.via("out", "tcp", pods[0], servers[0]+":443")
	l.via("c", "tcp", pods[1], servers[0]+":443")
	l.apply(steering(nil))
	for i := range born {
		born[i].must("b")
	}
	l.via("out", "udp", pods[1], servers[0]+":443")
}
