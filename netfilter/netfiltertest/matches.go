package netfiltertest

import (
	"net"
	"net/netip"
	"testing"

	nf "github.com/sallyport/sallyport/netfilter"
)

// matches gives each field of a Match a rule that counts, sends known packets and
// compares what was counted.
func (s Suite) matches(t *testing.T) {
	l := newLab(t, s)
	b, none := masked(markB), masked(0)
	udps, tcps := nf.Protocols{"udp"}, nf.Protocols{"tcp"}
	from := nf.Match{In: "pods0", Src: netip.MustParseAddr(pods[0])}
	with := func(change func(*nf.Match)) nf.Match {
		m := from
		change(&m)
		return m
	}
	cases := map[nf.Hook][]struct {
		name  string
		match nf.Match
		want  uint64
	}{
		nf.PreroutingRaw: {
			{"raw_all", with(func(m *nf.Match) { m.Protocol = udps }), 3},
			{"raw_dst_set", with(func(m *nf.Match) { m.Protocol, m.DstSet = udps, "fives" }), 2},
			{"raw_src_set", nf.Match{In: "pods0", Protocol: udps, SrcSet: "firsts"}, 3},
			{"raw_src_other_set", nf.Match{In: "pods0", Protocol: udps, SrcSet: "fives"}, 0},
			{"raw_src_net", nf.Match{In: "pods0", Protocol: udps, SrcNet: netip.MustParsePrefix(pods[1] + "/31")}, 4},
			{"raw_src_one", nf.Match{In: "pods0", Protocol: udps, SrcNet: netip.MustParsePrefix(pods[1] + "/32")}, 1},
			{"raw_src_net_all", nf.Match{In: "pods0", Protocol: udps, SrcNet: netip.MustParsePrefix("0.0.0.0/0")}, 4},
			{"raw_src_net_not_set", nf.Match{In: "pods0", Protocol: udps, SrcNet: netip.MustParsePrefix("10.244.1.0/24"), NotSrcSet: "firsts"}, 1},
			{"raw_not_src_set", with(func(m *nf.Match) { m.Protocol, m.NotSrcSet = udps, "firsts" }), 0},
			{"raw_not_src_other", nf.Match{In: "pods0", Src: netip.MustParseAddr(pods[1]), Protocol: udps, NotSrcSet: "firsts"}, 1},
		},
		nf.PreroutingMangle: {
			{"in", with(func(m *nf.Match) { m.Protocol = udps }), 3},
			{"not_in", nf.Match{NotIn: "pods0", Protocol: udps}, 2},
			{"dst", with(func(m *nf.Match) { m.Protocol, m.Dst = udps, netip.MustParseAddr(servers[0]) }), 2},
			{"dst_local", with(func(m *nf.Match) { m.Protocol, m.DstLocal = udps, true }), 1},
			{"tcp_or_icmp", with(func(m *nf.Match) { m.Protocol = nf.Protocols{"tcp", "icmp"} }), 1},
			{"icmp", with(func(m *nf.Match) { m.Protocol = nf.Protocols{"icmp"} }), 1},
			{"tcp", with(func(m *nf.Match) { m.Protocol = tcps }), 0},
			{"dst_port", with(func(m *nf.Match) { m.Protocol, m.DstPort = udps, 443 }), 2},
			{"src_port", with(func(m *nf.Match) { m.Protocol, m.SrcPorts = udps, nf.Ports{First: 5000, Last: 5001} }), 2},
			{"src_port_none", with(func(m *nf.Match) { m.Protocol, m.SrcPorts = udps, nf.Ports{First: 0, Last: 4999} }), 0},
			{"new", with(func(m *nf.Match) { m.Protocol, m.State = udps, nf.New }), 2},
			{"established", with(func(m *nf.Match) { m.Protocol, m.State = udps, nf.Established }), 1},
			{"invalid", with(func(m *nf.Match) { m.State = nf.Invalid }), 1},
			{"original", with(func(m *nf.Match) { m.Protocol, m.Direction = udps, nf.Original }), 3},
			{"reply", nf.Match{Dst: netip.MustParseAddr(pods[0]), Protocol: udps, Direction: nf.Reply}, 2},
			{"marked", with(func(m *nf.Match) { m.Protocol, m.Mark = udps, &b }), 2},
			{"not_marked", with(func(m *nf.Match) { m.Protocol, m.NotMark = udps, &b }), 1},
			{"conn_marked", with(func(m *nf.Match) { m.Protocol, m.ConnMark = udps, &b }), 2},
			{"conn_marked_any", with(func(m *nf.Match) { m.Protocol, m.NotConnMark = udps, &none }), 2},
		},
		nf.InputFilter:   {{"input", with(func(m *nf.Match) { m.Protocol = udps }), 1}},
		nf.ForwardFilter: {{"forward_out", with(func(m *nf.Match) { m.Protocol, m.Out = udps, "b0" }), 2}, {"forward_not_out", with(func(m *nf.Match) { m.Protocol, m.NotOut = udps, "b0" }), 0}},
		nf.ForwardMangle: {{"mangle_out", with(func(m *nf.Match) { m.Protocol, m.Out = udps, "b0" }), 2}},
		nf.OutputRaw:     {{"output", nf.Match{Out: "out0", Protocol: udps}, 1}},
	}
	table := nf.Table{Name: tableName, Sets: []nf.Set{
		{Name: "fives", Addrs: addrs(servers[0])}, {Name: "firsts", Addrs: addrs(pods[0])},
	}}
	want := map[string]uint64{}
	for _, hook := range []nf.Hook{nf.PreroutingRaw, nf.PreroutingMangle, nf.InputFilter, nf.ForwardFilter, nf.ForwardMangle, nf.OutputRaw} {
		chain := nf.Chain{Name: "at-" + string(hook), Hook: hook}
		if hook == nf.PreroutingMangle {
			to := with(func(m *nf.Match) { m.Dst = netip.MustParseAddr(servers[0]) })
			chain.Rules = append(chain.Rules, nf.Rule{Match: to, Action: nf.SetMark(b)}, nf.Rule{Match: to, Action: nf.SetConnMark(b)})
		}
		for _, c := range cases[hook] {
			chain.Rules = append(chain.Rules, nf.Rule{Match: c.match, Count: c.name})
			table.Counters = append(table.Counters, c.name)
			want[c.name] = c.want
		}
		table.Chains = append(table.Chains, chain)
	}
	l.apply(table)

	// Two packets of one connection by way b, one to the router itself, one of
	// another pod, one ICMP that answers nothing, one of the router's own.
	first, err := l.dial("udp", pods[0], 5000, servers[0]+":443")
	if err != nil {
		t.Fatal(err)
	}
	first.must("b")
	first.must("b")
	l.send("udp4", pods[0], "10.244.1.1:8080")
	l.send("udp4", pods[1], "10.244.1.1:8080")
	l.send("ip4:icmp", pods[0], "10.244.1.1")
	l.in(func() error {
		c, err := net.Dial("udp", "198.18.0.100:9")
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write([]byte("?"))
		return err
	})

	l.expect(want)
}

// unasked is an ICMP echo reply (RFC 792) that nobody asked for, which connection
// tracking calls invalid.
var unasked = []byte{0, 0, 0xff, 0xff, 0, 0, 0, 0}

// send sends one packet of a pod and waits for no answer.
func (l *lab) send(network, src, dst string) {
	l.t.Helper()
	err := l.pod.Do(func() error {
		var d net.Dialer
		payload := []byte("?")
		if network == "ip4:icmp" {
			d.LocalAddr, payload = &net.IPAddr{IP: net.ParseIP(src)}, unasked
		} else {
			d.LocalAddr = &net.UDPAddr{IP: net.ParseIP(src)}
		}
		c, err := d.Dial(network, dst)
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write(payload)
		return err
	})
	if err != nil {
		l.t.Fatal(err)
	}
}
