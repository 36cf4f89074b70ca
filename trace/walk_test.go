package trace

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/doctor"
	"github.com/sallyport/sallyport/gateway"
	"github.com/sallyport/sallyport/netfilter"
	"github.com/sallyport/sallyport/tunnel"
)

var (
	vip     = netip.MustParseAddr("192.0.2.10")
	podAddr = netip.MustParseAddr("10.244.2.10")
	nodeEnd = netip.MustParseAddr("192.0.2.2")
	packet  = gateway.Packet{Dst: netip.MustParseAddr("203.0.113.9"), Protocol: gateway.TCP, Port: 443}
)

// wellFacts are those of a path on which nothing is wrong.
func wellFacts() Facts {
	view := gateway.Explanation{
		Found: true, Node: "n2", Addrs: []netip.Addr{podAddr}, Route: "payments", VIP: vip, Addr: podAddr,
		Chances: []gateway.Chance{{Route: "payments", By: gateway.ByAnnotation, Exists: true, Admits: true}},
	}
	return Facts{
		Question: Question{Namespace: "shop", Pod: "bank", Packet: packet},
		API:      &Pod{Found: true, Node: "n2", Phase: "Running", Addrs: []netip.Addr{podAddr}},
		Agent: &Agent{
			Common: Common{Node: "n2", Live: true, View: view, Device: "sally0", Way: tunnel.Way{Device: "sally0", Table: 5321, Remote: vip}},
			Mark:   0x1500, Remote: vip, Path: &doctor.Path{To: vip, Device: "sally0", Size: 1500, Largest: 1500},
		},
		Gateways: []Gateway{
			{Common: Common{Node: "n1", Live: true, View: view, Device: "sally0", Way: tunnel.Way{Device: "sally0", Table: 5331, Remote: nodeEnd}},
				Name: "gw-0", Known: true, Held: true, Holder: "gw-0", Voters: []string{"gw-0", "gw-1"}, Quorum: 2, Inside: vip,
				Has: []netip.Addr{vip}, Open: map[netip.Addr]time.Duration{vip: time.Second}, Outward: tunnel.Way{Device: "eth0", Table: 254}, Back: nodeEnd},
			{Common: Common{Node: "n2", Live: true, View: view}, Name: "gw-1", Known: true, Holder: "gw-0", Voters: []string{"gw-0", "gw-1"}, Quorum: 2},
		},
		Probe: &Probe{Connected: true, Seen: vip},
	}
}

func TestNothingIsWrong(t *testing.T) {
	if r := Walk(wellFacts()); r.First != 0 || !r.Asked || r.Pod != "shop/bank" || r.Destination != "203.0.113.9:443 tcp" {
		t.Errorf("%+v", r)
	}
}

// More gateways than must agree are no "3 of the 2".
func TestVotersAreNotPartOfTheQuorum(t *testing.T) {
	f := wellFacts()
	f.Gateways[0].Voters = append(f.Gateways[0].Voters, "gw-2")
	const want = "gw-0 holds 192.0.2.10; 3 gateways hear each other, 2 must"
	if steps := Walk(f).Steps; !slices.ContainsFunc(steps, func(s Step) bool { return s.Name == "holder" && s.Verdict == OK && s.Found == want }) {
		t.Errorf("nothing says %q: %+v", want, steps)
	}
}

// unselected takes the route away and leaves these chances.
func unselected(f *Facts, chances ...gateway.Chance) {
	f.Agent.View.Route, f.Agent.View.VIP, f.Agent.View.Chances = "", netip.Addr{}, chances
	f.Probe = nil
}

// ownNode are problems of a program with its Node, of which the second keeps no packet back.
var ownNode = []gateway.Problem{
	{Object: "Node n1", Field: "status.addresses", Reason: gateway.UnknownNode, Message: "192.0.2.1 is not among them"},
	{Object: "Node n1", Field: "--node-name", Reason: gateway.Misconfigured, Message: "another's"},
}

func missing(set bool, object, text string) []netfilter.Pending {
	return []netfilter.Pending{{Set: set, Object: object, Text: text}}
}

// wrongs are one thing wrong each, and the step that tells it.
var wrongs = []struct {
	name        string
	spoil       func(f *Facts)
	step, found string
}{
	{"no pod", func(f *Facts) { f.API.Found = false }, "pod", "there is no Pod shop/bank"},
	{"no address yet", func(f *Facts) { f.API.Addrs = nil }, "pod", "has no address yet"},
	{"unknown to the agent", func(f *Facts) { f.Agent.View = gateway.Explanation{} }, "agent's view", "is not in it"},
	{"host network", func(f *Facts) { f.Agent.View.HostNetwork = true }, "agent's view", "on its node's network"},
	{"ended", func(f *Facts) { f.Agent.View.Ended = true }, "agent's view", "has ended"},
	{"interface gone", func(f *Facts) { f.Agent.Left = true }, "agent's view", "interface"},
	{"agent has another address", func(f *Facts) { f.API.Addrs = []netip.Addr{nodeEnd} }, "agent's view", "in the API it has 192.0.2.2"},
	{"two pods of one address", func(f *Facts) { f.Agent.View.Disputed = true }, "agent's view", "another pod has address"},
	{"not selected", func(f *Facts) { unselected(f) }, "selection", "no route selects the pod"},
	{"named and not there", func(f *Facts) { unselected(f, gateway.Chance{Route: "x", By: gateway.ByNamespace}) }, "selection", "names EgressRoute x, which there is not"},
	{"not admitted", func(f *Facts) {
		unselected(f, gateway.Chance{Route: "x", By: gateway.ByAnnotation, Exists: true})
	}, "access", "x does not admit namespace shop"},
	{"not admitted, and another route of the pod's does not have it", func(f *Facts) {
		unselected(f, gateway.Chance{Route: "x", By: gateway.ByAnnotation, Exists: true},
			gateway.Chance{Route: "y", By: gateway.ByAnnotation, Exists: true, Admits: true, Refuses: "elsewhere"})
	}, "access", "x does not admit namespace shop"},
	{"excepted", func(f *Facts) {
		unselected(f, gateway.Chance{Route: "x", By: gateway.ByAnnotation, Exists: true, Admits: true, Refuses: "it is in except"})
	}, "destination", "EgressRoute x: it is in except"},
	{"not applied", func(f *Facts) { f.Agent.Apply = "no room" }, "agent", "no room"},
	{"set", func(f *Facts) { f.Agent.Filter = missing(true, "set routes-sources", "element missing") }, "sets", "routes-sources"},
	{"rule", func(f *Facts) { f.Agent.Filter = missing(false, "chain steer", "rule missing") }, "rules", "chain steer"},
	{"ip rule", func(f *Facts) { f.Agent.Tunnel.Rules = []string{"add ip rule 95"} }, "ip rule", "add ip rule 95"},
	{"tunnel", func(f *Facts) {
		f.Agent.Tunnel = tunnel.Pending{Device: []string{"device sally0 is down"}, Routes: []string{"add route"}}
	}, "tunnel", "is down"},
	{"rp_filter", func(f *Facts) { f.Agent.Settings = []string{"rp_filter is 1"} }, "tunnel", "rp_filter is 1"},
	{"table", func(f *Facts) { f.Agent.Tunnel.Routes = []string{"add route"} }, "table", "add route"},
	{"another's rule first", func(f *Facts) { f.Agent.Way.Device = "wg0" }, "route", "to device wg0"},
	{"no way", func(f *Facts) { f.Agent.NoWay = "unreachable" }, "route", "unreachable"},
	{"no gateway has the VIP", func(f *Facts) { f.Gateways[0].Known, f.Gateways[1].Known = false, false }, "holder", "no gateway is configured"},
	{"nobody holds", func(f *Facts) {
		for i := range f.Gateways {
			f.Gateways[i].Held, f.Gateways[i].Holder, f.Gateways[i].Voters = false, "", f.Gateways[i].Voters[:1]
		}
	}, "holder", "hears 1 of the 2 gateways that must agree"},
	{"nobody can hold", func(f *Facts) {
		for i := range f.Gateways {
			f.Gateways[i].Held, f.Gateways[i].Holder, f.Gateways[i].Barred = false, "", "eth0 has no carrier"
		}
	}, "holder", "eth0 has no carrier"},
	{"nobody holds yet", func(f *Facts) {
		for i := range f.Gateways {
			f.Gateways[i].Held, f.Gateways[i].Holder, f.Gateways[i].Voters = false, "", []string{"gw-0", "gw-1", "gw-2"}
		}
	}, "holder", "nobody holds 192.0.2.10: gw-0 hears enough gateways: they are electing one"},
	{"two hold", func(f *Facts) { f.Gateways[1].Held = true }, "holder", "gw-0 and gw-1 hold"},
	{"large packets do not pass", func(f *Facts) { f.Agent.Path.Largest = 1400 }, "mtu", "packets of 1400 bytes come back, of the tunnel's 1500 bytes not"},
	{"not applied by the holder", func(f *Facts) { f.Gateways[0].Apply = "no room" }, "gateway", "it could not apply the last view: no room"},
	{"gateway's view is older", func(f *Facts) { f.Gateways[0].View.Route = "" }, "admission", "by no route"},
	{"a pod of another node has the address", func(f *Facts) { f.Gateways[0].View.Disputed = true }, "admission", "another pod has address 10.244.2.10, too"},
	{"admission", func(f *Facts) { f.Gateways[0].Filter = missing(true, "set peers", "element missing") }, "admission", "set peers"},
	{"gateway's rules", func(f *Facts) { f.Gateways[0].Filter = missing(false, "chain inner", "is missing") }, "gateway's rules", "chain inner"},
	{"translation", func(f *Facts) {
		f.Gateways[0].Filter = missing(false, "chain source", `rule "snat to 192.0.2.10" is missing`)
	}, "SNAT", "snat to"},
	{"address", func(f *Facts) { f.Gateways[0].Has = nil }, "address", "no interface of the holder has 192.0.2.10"},
	{"fence", func(f *Facts) { f.Gateways[0].Open = nil }, "address", "the fence is closed"},
	{"conflict", func(f *Facts) { f.Gateways[0].Conflict = "another host claims it" }, "address", "another host"},
	{"no way out", func(f *Facts) { f.Gateways[0].NoOutward = "unreachable" }, "way out", "unreachable"},
	{"out into the tunnel", func(f *Facts) { f.Gateways[0].Outward.Device = "sally0" }, "way out", "into the tunnel"},
	{"reply rule", func(f *Facts) { f.Gateways[0].Tunnel.Rules = []string{"add ip rule"} }, "reply rule", "add ip rule"},
	{"reply route", func(f *Facts) { f.Gateways[0].Tunnel.Routes = []string{"add route"} }, "reply route", "add route"},
	{"agent of no Node", func(f *Facts) { f.Agent.Refuse(ownNode) }, "route", "Node n1: status.addresses: 192.0.2.1 is not among them"},
	{"gateway of no Node", func(f *Facts) { f.Gateways[0].Refuse(ownNode) }, "reply", "Node n1: status.addresses: 192.0.2.1 is not among them"},
	{"reply to another node", func(f *Facts) { f.Gateways[0].Way.Remote = vip }, "reply", "tunnel end 192.0.2.10"},
	{"another translation", func(f *Facts) {
		f.Gateways[0].Connections = []Connection{{As: netip.AddrPortFrom(nodeEnd, 7)}}
	}, "connections", "leaves as 192.0.2.2:7"},
	{"no connection", func(f *Facts) { f.Probe = &Probe{Error: "timeout"} }, "probe", "timeout"},
	{"seen as the node", func(f *Facts) { f.Probe.Seen = nodeEnd }, "probe", "the outside saw 192.0.2.2"},
}

// unasked are faults of those that were asked.
var unasked = map[string]func(f *Facts){
	"agent": func(f *Facts) { f.Agent, f.Silent = nil, []Silent{{"agent", "n2", "refused"}} },
	"gateways": func(f *Facts) {
		f.Gateways = nil
		f.Silent = []Silent{{"gateway", "n1", "refused"}}
	},
	"holder":                        func(f *Facts) { f.Gateways = f.Gateways[1:] },
	"holder, which does not answer": func(f *Facts) { f.Gateways, f.Silent = f.Gateways[1:], []Silent{{"gateway", "n1", "refused"}} },
	"mtu":                           func(f *Facts) { f.Agent.Path.Largest, f.Agent.Path.Error = 0, "not allowed" },
	"kernel":                        func(f *Facts) { f.Agent.Errors = []string{"no answer"} },
}

func TestStepsAreAllThatThereAre(t *testing.T) {
	seen := map[string]bool{}
	walk := func(spoil func(f *Facts)) {
		f := wellFacts()
		spoil(&f)
		for _, s := range Walk(f).Steps {
			seen[s.Name] = true
		}
	}
	for _, w := range wrongs {
		walk(w.spoil)
	}
	for _, spoil := range unasked {
		walk(spoil)
	}
	if got, want := slices.Sorted(maps.Keys(seen)), slices.Sorted(slices.Values(Steps)); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestTheFirstThingWrong(t *testing.T) {
	for _, test := range wrongs {
		t.Run(test.name, func(t *testing.T) {
			f := wellFacts()
			test.spoil(&f)
			r := Walk(f)
			if r.First == 0 {
				t.Fatalf("nothing is wrong: %+v", r.Steps)
			}
			if s := r.Steps[r.First-1]; s.Name != test.step || !strings.Contains(s.Found, test.found) || s.Cure == "" || s.Expected == "" {
				t.Errorf("%+v", s)
			}
		})
	}
}

func TestWhatCouldNotBeAskedIsNotWell(t *testing.T) {
	for name, spoil := range unasked {
		f := wellFacts()
		spoil(&f)
		if r := Walk(f); r.Asked || r.First != 0 {
			t.Errorf("%s: %+v", name, r)
		}
	}
	f := wellFacts()
	f.Silent = []Silent{{"gateway", "n3", "refused"}} // one of three: the path is known
	if r := Walk(f); !r.Asked || r.First != 0 {
		t.Errorf("%+v", r)
	}
}

func TestDestinationAndPodName(t *testing.T) {
	for text, want := range map[string]gateway.Packet{
		"203.0.113.9:443":     packet,
		"203.0.113.9:443/tcp": packet,
		"203.0.113.9:53/udp":  {Dst: packet.Dst, Protocol: gateway.UDP, Port: 53},
		"203.0.113.9":         {}, "203.0.113.9:0": {}, "203.0.113.9:70000": {}, "203.0.113.9:53/icmp": {}, "[2001:db8::1]:443": {}, "bank.example:443": {}, "": {},
	} {
		got, err := Destination(text)
		if got != want || (err == nil) != want.Dst.IsValid() {
			t.Errorf("%q: %v %v", text, got, err)
		}
		if err != nil && !strings.Contains(err.Error(), "give a") && !strings.Contains(err.Error(), "give ADDRESS:PORT") && !strings.Contains(err.Error(), "IPv4") {
			t.Errorf("%q: no cure: %v", text, err)
		}
	}
	for text, want := range map[string][2]string{
		"bank": {"default", "bank"}, "bank.shop": {"shop", "bank"}, "bank.v1.shop": {"shop", "bank.v1"}, "bank.": {}, ".shop": {}, "": {},
	} {
		q, err := PodName(text, "default")
		if (err != nil) != (want == [2]string{}) || err == nil && [2]string{q.Namespace, q.Pod} != want {
			t.Errorf("%q: %+v %v", text, q, err)
		}
	}
}
