package steer

import (
	"flag"
	"net/netip"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport/sallyport/gateway"
	"github.com/sallyport/sallyport/tunnel"
)

var update = flag.Bool("update", false, "rewrite testdata")

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got; go test -update rewrites it):\n%s", file, diff)
	}
}

func plan() gateway.Plan {
	addr, cidr := netip.MustParseAddr, netip.MustParsePrefix
	tcp := []gateway.Port{{Protocol: gateway.TCP, First: 443, Last: 444}}
	return gateway.Plan{
		Routes: []gateway.PlannedRoute{
			{Name: "payments", ID: 7, VIP: addr("192.0.2.10"), Destinations: []gateway.Destination{
				{CIDR: cidr("203.0.113.0/24"), Except: []netip.Prefix{cidr("203.0.113.9/32")}, Ports: tcp}}},
			{Name: "kyc", ID: 9, VIP: addr("192.0.2.11"), Destinations: []gateway.Destination{{CIDR: cidr("198.51.100.0/24")}}},
		},
		Pods: []gateway.PlannedPod{
			{Addr: addr("10.244.1.10"), Routes: []int{0}}, {Addr: addr("10.244.1.11"), Routes: []int{0, 1}}, {Addr: addr("10.244.2.10"), Routes: []int{0}},
		},
		Peers: []netip.Addr{addr("192.0.2.1"), addr("192.0.2.2")},
		VIPs:  []netip.Addr{addr("192.0.2.10"), addr("192.0.2.11")},
	}
}

func node() gateway.Hold {
	return gateway.Hold{
		Told: []gateway.Resident{
			{Namespace: "audit", Addrs: []netip.Addr{netip.MustParseAddr("10.244.1.12")}},
			{Namespace: "shop", Addrs: []netip.Addr{netip.MustParseAddr("10.244.1.10"), netip.MustParseAddr("10.244.1.11")}},
		},
		Ranges: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("10.245.0.0/16")},
		Known:  []netip.Addr{netip.MustParseAddr("10.244.1.10"), netip.MustParseAddr("10.244.1.11"), netip.MustParseAddr("10.244.1.12")},
	}
}

// lenient is the plan with its first routes failing open, and one exclusive.
func lenient(open, exclusive int) gateway.Plan {
	p := plan()
	for i := range p.Routes {
		p.Routes[i].FailOpen, p.Routes[i].Exclusive = i < open, i == exclusive
	}
	return p
}

func TestTable(t *testing.T) {
	a, b := netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("192.0.2.11")
	for _, c := range []struct {
		file string
		plan gateway.Plan
		hold gateway.Hold
		ends []tunnel.Remote
	}{
		{"testdata/nothing.txt", gateway.Plan{}, node(), nil},
		{"testdata/two-vips.txt", plan(), node(), []tunnel.Remote{{VIP: a, Inside: a}, {VIP: b, Inside: netip.MustParseAddr("10.0.0.10")}}},
		{"testdata/a-vip-without-an-end.txt", plan(), gateway.Hold{}, []tunnel.Remote{{VIP: a, Inside: a}}},
		{"testdata/exclusive.txt", lenient(0, 1), node(), []tunnel.Remote{{VIP: a, Inside: a}, {VIP: b, Inside: b}}},
		{"testdata/all-fail-open.txt", lenient(2, -1), node(), []tunnel.Remote{{VIP: a, Inside: a}, {VIP: b, Inside: b}}},
	} {
		table, err := Table(tunnel.DefaultConfig(), c.plan, c.hold, c.ends)
		if err != nil {
			t.Fatal(err)
		}
		if err := table.Validate(); err != nil {
			t.Errorf("%s: %v", c.file, err)
		}
		golden(t, c.file, table.Listing())
	}
}

func TestTableRefusesMoreVIPsThanMarks(t *testing.T) {
	cfg := tunnel.DefaultConfig()
	cfg.Marks.Mask = 0x300
	ends := []tunnel.Remote{}
	for i := range 3 {
		v := netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})
		ends = append(ends, tunnel.Remote{VIP: v, Inside: v})
	}
	if _, err := Table(cfg, gateway.Plan{}, gateway.Hold{}, ends); err == nil {
		t.Error("three VIPs fit a mask with room for two")
	}
}
