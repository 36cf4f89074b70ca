package snat

import (
	"flag"
	"net/netip"
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport/sallyport/gateway"
	nf "github.com/sallyport/sallyport/netfilter"
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

func TestTable(t *testing.T) {
	a, b := netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("192.0.2.11")
	both := []tunnel.Remote{{VIP: a, Inside: a}, {VIP: b, Inside: netip.MustParseAddr("10.0.0.10")}}
	for _, c := range []struct {
		file      string
		plan      gateway.Plan
		ends      []tunnel.Remote
		nodePorts nf.Ports
	}{
		{"testdata/nothing.txt", gateway.Plan{}, nil, nf.Ports{}},
		{"testdata/two-vips.txt", plan(), both, nf.Ports{First: 30000, Last: 32767}},
		{"testdata/a-vip-of-another-group.txt", plan(), both[:1], nf.Ports{}},
	} {
		table, err := Table(Config{Tunnel: tunnel.DefaultConfig(), Zone: 7, NodePorts: c.nodePorts}, c.plan, c.ends)
		if err != nil {
			t.Fatal(err)
		}
		if err := table.Validate(); err != nil {
			t.Errorf("%s: %v", c.file, err)
		}
		golden(t, c.file, table.Listing())
	}
}

// TestTranslateUsesNoNodePort checks every source port against NodePort ranges at
// either end of the ports.
func TestTranslateUsesNoNodePort(t *testing.T) {
	for _, barred := range []nf.Ports{{First: 30000, Last: 32767}, {First: 1, Last: 2000}, {First: 1024, Last: 5000}, {First: 60000, Last: 65535}} {
		rules := translate(Config{NodePorts: barred}, nf.Masked{}, netip.MustParseAddr("192.0.2.10"))
		for port := range 65536 {
			at := slices.IndexFunc(rules, func(r nf.Rule) bool {
				ports := r.Match.SrcPorts
				return ports == nf.Ports{} || int(ports.First) <= port && port <= int(ports.Last)
			})
			to := rules[at].Action.(nf.SNAT).Ports
			if to.First < 1024 || to.First > to.Last || to.First <= barred.Last && barred.First <= to.Last {
				t.Fatalf("port %d is translated to %s with NodePorts %s", port, to, barred)
			}
			free := port >= 1024 && (port < int(barred.First) || port > int(barred.Last))
			if kept := int(to.First) <= port && port <= int(to.Last); free != kept {
				t.Fatalf("free port %d is kept: %t, translated to %s with NodePorts %s", port, kept, to, barred)
			}
		}
	}
}
