package survey

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/gateway"
	"github.com/sallyport/sallyport/gateway/host"
)

var vip = netip.MustParseAddr("192.0.2.10")

// gatewaySays is a gateway with one VIP as it sees it.
func gatewaySays(pod, holder string, held bool, voters ...string) Member {
	return Member{Program: "gateway", Pod: pod, Node: "node of " + pod, Status: &host.Status{
		VIPs: []host.VIP{{VIP: vip, Holder: holder, Held: held, Term: 7, Voters: voters, Replicas: 3}},
	}}
}

func TestTheHoldersOwnWordCounts(t *testing.T) {
	silent := Member{Program: "gateway", Pod: "gw-0"}
	for _, test := range []struct {
		name                 string
		gateways             []Member
		holder, node, voters string
		note                 string
	}{
		{"agreed", []Member{gatewaySays("gw-0", "gw-1", false, "gw-0", "gw-1", "gw-2"), gatewaySays("gw-1", "gw-1", true, "gw-0", "gw-1")},
			"gw-1", "node of gw-1", "gw-0 gw-1", ""},
		{"another has not heard of it", []Member{gatewaySays("gw-1", "gw-1", true, "gw-0", "gw-1"), gatewaySays("gw-2", "", false, "gw-2")},
			"gw-1", "node of gw-1", "gw-0 gw-1", ""},
		{"the holder does not answer", []Member{silent, gatewaySays("gw-1", "gw-0", false, "gw-0", "gw-1")},
			"gw-0", "", "gw-0 gw-1", "the holder does not answer"},
		{"no quorum", []Member{silent, gatewaySays("gw-1", "", false, "gw-1")},
			"", "", "gw-1", "too few gateways hear each other"},
		{"two holders", []Member{gatewaySays("gw-0", "gw-0", true, "gw-0", "gw-2"), gatewaySays("gw-1", "gw-1", true, "gw-1", "gw-2")},
			"gw-0", "node of gw-0", "gw-0 gw-2", "held by gw-0 and gw-1 at once"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := vips(test.gateways)
			if len(got) != 1 {
				t.Fatalf("%+v", got)
			}
			v := got[0]
			if v.Holder != test.holder || v.Node != test.node || strings.Join(v.Voters, " ") != test.voters || !strings.Contains(v.Note, test.note) || (test.note == "") != (v.Note == "") {
				t.Errorf("%+v", v)
			}
		})
	}
}

func TestAProblemThatManyHaveIsToldOnce(t *testing.T) {
	shared := gateway.Problem{Object: "Pod shop/a", Reason: gateway.UnknownRoute, Message: "there is no such route"}
	a, b := gatewaySays("gw-0", "gw-0", true), gatewaySays("gw-1", "gw-0", false)
	a.Status.Problems = []gateway.Problem{shared}
	b.Status.Problems = []gateway.Problem{shared, {Object: "Gateway gw-1", Reason: gateway.Misconfigured, Message: "its own"}}
	o := overview([]Member{a, b, {Program: "agent", Pod: "silent"}}, nil)
	if len(o.Problems) != 2 || len(o.Gateways) != 2 || len(o.Agents) != 1 {
		t.Errorf("%+v", o)
	}
	// Scripts read it: lists are lists, even empty.
	text, err := json.Marshal(overview(nil, nil))
	if err != nil || strings.Contains(string(text), "null") {
		t.Errorf("%s %v", text, err)
	}
}
