package netfiltertest

import (
	"net/netip"

	nf "github.com/sallyport/sallyport/netfilter"
)

const tableName = "sally_test"

func addrs(list ...string) []netip.Addr {
	out := make([]netip.Addr, 0, len(list))
	for _, a := range list {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

func target(value uint32, cidr string, ports ...nf.ProtocolPorts) nf.Target {
	return nf.Target{CIDR: netip.MustParsePrefix(cidr), Ports: ports, Value: value}
}

func tcp(first, last uint16) nf.ProtocolPorts {
	return nf.ProtocolPorts{Protocol: 6, Ports: nf.Ports{First: first, Last: last}}
}

func udp(first, last uint16) nf.ProtocolPorts {
	return nf.ProtocolPorts{Protocol: 17, Ports: nf.Ports{First: first, Last: last}}
}

func masked(value uint32) nf.Masked { return nf.Masked{Value: value, Mask: markMask} }

// steering is a table that sends what the classifier finds by way b or c and keeps
// connections on the way they were born with.
func steering(sources map[string]int, classes ...[]nf.Target) nf.Table {
	of := map[netip.Addr]int{}
	for a, class := range sources {
		of[netip.MustParseAddr(a)] = class
	}
	c := nf.Classifier{Name: "routes", Sources: nf.SourcesOf(of), Classes: classes}
	b, cc := masked(markB), masked(markC)
	way := func(name, counter string, m nf.Masked) nf.Chain {
		return nf.Chain{Name: name, Rules: []nf.Rule{
			{Count: counter, Action: nf.SetMark(m)},
			{Action: nf.SetConnMark(m), Why: "a connection keeps its way"},
		}}
	}
	return nf.Table{
		Name: tableName, Classifiers: []nf.Classifier{c},
		Counters: []string{"by_b", "by_c", "unselected", "selected"},
		Chains: []nf.Chain{
			{Name: "steer", Hook: nf.PreroutingMangle, Rules: []nf.Rule{
				{Match: nf.Match{NotIn: "pods0"}, Action: nf.Return{}},
				{Match: nf.Match{Direction: nf.Reply}, Action: nf.Return{}},
				{Match: nf.Match{ConnMark: &b}, Action: nf.Goto{Chain: "to-b"}},
				{Match: nf.Match{ConnMark: &cc}, Action: nf.Goto{Chain: "to-c"}},
				{Match: nf.Match{State: nf.Established}, Action: nf.Return{}},
				{Action: nf.Classify{By: "routes", To: map[uint32]string{markB: "to-b", markC: "to-c"}}},
				{Match: nf.Match{Unselected: "routes"}, Count: "unselected", Action: nf.Return{}},
				{Count: "selected"},
			}},
			way("to-b", "by_b", b),
			way("to-c", "by_c", cc),
		},
	}
}
