package vxlan

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/tunnel"
)

// What is sent is read back as what was meant.
func TestRouteThereAndBack(t *testing.T) {
	at := end{1<<24 - 1, 7, local}
	for _, r := range []tunnel.Route{
		{Table: 5301, Dst: netip.MustParsePrefix("0.0.0.0/0"), Remote: vipA},
		{Table: 70000, Dst: netip.MustParsePrefix("10.244.0.1/32"), Remote: local},
		{Table: 5301, Dst: netip.MustParsePrefix("192.0.2.10/32")},
	} {
		e := decodeRoute(putRoute(r, at, false).body)
		if e.key != (key{r.Table, r.Dst}) || !e.is(r, at) {
			t.Errorf("%v came back as %+v", r, e)
		}
		other := r
		other.Remote = netip.MustParseAddr("192.0.2.99")
		if e.is(other, at) || r.Remote.IsValid() && (e.is(r, end{51, 7, local}) || e.is(r, end{1<<24 - 1, 8, local}) || e.is(r, end{1<<24 - 1, 7, vipA})) {
			t.Errorf("%v passes for another", r)
		}
	}
	rule := tunnel.Rule{Value: 0x100, Mask: 0x3f00, Table: 70000, Priority: 95}
	if got := decodeRule(addRule(rule).body); got.Rule != rule || got.odd || got.protocol != Protocol {
		t.Errorf("%v came back as %+v", rule, got)
	}
}

// Whatever the bytes, reading them does not panic.
func FuzzDecode(f *testing.F) {
	f.Add(putRoute(tunnel.Route{Table: 5301, Dst: netip.MustParsePrefix("10.0.0.0/8"), Remote: vipA}, end{51, 7, local}, false).body)
	f.Add(addRule(tunnel.Rule{Value: 1, Mask: 1, Table: 5301, Priority: 95}).body)
	f.Add(newVXLAN("sally0", 4793, 1464).body)
	f.Fuzz(func(_ *testing.T, b []byte) {
		decodeLink(b)
		_ = refusal(header{typ: unix.NLMSG_ERROR, flags: unix.NLM_F_ACK_TLVS}, b)
		if len(b) >= unix.SizeofRtMsg {
			e := decodeRoute(b)
			_ = e.String()
			_ = ruleString(decodeRule(b).Rule)
		}
	})
}
