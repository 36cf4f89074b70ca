package gateway

import (
	"net/netip"
	"strings"
	"testing"
)

func TestOwnNode(t *testing.T) {
	first, second, typo := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("192.0.2.91")
	node := func(name string, addrs ...netip.Addr) Node { return Node{Name: name, Addrs: addrs} }
	for _, c := range []struct {
		name  string
		nodes []Node
		want  string // "": no problem
	}{
		{"as it is", []Node{node("n1", first), node("n2", second)}, ""},
		{"by its second address", []Node{node("n1", typo, first)}, ""},
		{"no Node", []Node{node("n2", second)}, "Node n1: there is no such Node, and none has 192.0.2.1, the --node-ip of this gateway, so other hosts refuse"},
		{"no Nodes at all", nil, "Node n1: there is no such Node"},
		{"another address", []Node{node("n1", typo), node("n2", second)}, "Node n1: status.addresses: 192.0.2.1, the --node-ip of this gateway, is not among them"},
		{"another's address", []Node{node("n1", second), node("n2", first)}, "Node n1: --node-name: 192.0.2.1, the --node-ip of this gateway, is an address of Node n2: give it --node-name n2"},
		{"another's name", []Node{node("n2", first)}, "Node n1: --node-name: 192.0.2.1, the --node-ip of this gateway, is an address of Node n2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			plan, _ := Build(Snapshot{Nodes: c.nodes}, nil)
			var got []string
			for _, p := range OwnNode("gateway", "n1", first, c.nodes, plan.Peers) {
				got = append(got, p.String())
			}
			if len(got) > 1 || (c.want == "") != (len(got) == 0) || !strings.HasPrefix(strings.Join(got, ""), c.want) {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}
