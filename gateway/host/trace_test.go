package host

import (
	"net/netip"
	"testing"

	"github.com/sallyport/sallyport/trace"
)

func TestConnectionsThatFareAsFewDoAreTold(t *testing.T) {
	vip, node := netip.MustParseAddrPort("192.0.2.10:0"), netip.MustParseAddr("192.0.2.1")
	var all []trace.Connection
	for port := range uint16(1000) {
		all = append(all, trace.Connection{As: netip.AddrPortFrom(vip.Addr(), port), Answered: true, Mark: 1})
	}
	all[500].As, all[700].Mark, all[900].Answered = netip.AddrPortFrom(node, 500), 2, false
	some := telling(all)
	if len(some) != someConnections || some[0].As.Port() != 500 || some[1].As.Port() != 700 || some[2].As.Port() != 900 {
		t.Errorf("%+v", some)
	}
	if some = telling(nil); len(some) != 0 {
		t.Errorf("%+v", some)
	}
}
