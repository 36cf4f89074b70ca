package replica

import (
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/e2e/netns"
	"github.com/sallyport/sallyport/flows/conntrack"
	"github.com/sallyport/sallyport/gateway"
	"github.com/sallyport/sallyport/gateway/host"
	nf "github.com/sallyport/sallyport/netfilter"
	"github.com/sallyport/sallyport/snat"
)

// What a status says of connections and ports is what the kernel's zone has, by VIP and by
// route; what nobody has any more is gone at the next count.
func TestCensusCountsTheZoneByVIPAndRoute(t *testing.T) {
	netns.Test(t)
	const zone = 51
	var (
		first, second = netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("192.0.2.11")
		pod           = netip.MustParseAddr("10.244.1.10")
		none          uint16 // the route of what no route admitted
	)
	insert := func(in, route uint16, vip netip.Addr, port uint16, to string) conntrack.Entry {
		t.Helper()
		at := netip.MustParseAddrPort(to)
		e := conntrack.Entry{Zone: in, Mark: uint32(route)<<16 | 0x100, Timeout: time.Hour, Status: conntrack.SeenReply,
			Original: conntrack.Tuple{Src: pod, Dst: at.Addr(), Protocol: unix.IPPROTO_UDP, SrcPort: port, DstPort: at.Port()}}
		e.Reply = e.Original.Inverse()
		e.Reply.Dst, e.Reply.DstPort = vip, port+1
		if err := conntrack.Insert(e); err != nil {
			t.Fatal(err)
		}
		return e
	}
	const bank, shop, other = "203.0.113.5:443", "203.0.113.5:53", "203.0.113.9:443"
	ended := []conntrack.Entry{insert(zone, 7, first, 5000, bank), insert(zone, 7, first, 5001, bank)}
	insert(zone, 7, first, 5002, shop)
	insert(zone, 9, first, 5003, bank) // another route's, of the same VIP's ports towards the bank
	insert(zone, 9, second, 5004, bank)
	insert(zone, 9, second, 5005, other)
	insert(zone, 9, second, 5006, other)
	insert(zone, none, second, 5007, shop)
	// More destinations than are told of, each with less than the fullest: it is none of these
	// whatever the order they are met in.
	for i := range worst {
		insert(zone, 9, second, 6000+2*uint16(i), fmt.Sprintf("203.0.113.%d:443", 100+i))
	}
	insert(zone+1, 7, first, 5008, bank) // the host's own

	c := newCensus(snat.Config{Zone: zone, NodePorts: nf.Ports{First: 30000, Last: 32767}}, slog.New(slog.DiscardHandler))
	count := func(minute time.Duration) {
		t.Helper()
		if err := c.count(minute * time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	// Not in the order of the routes' numbers; one has no connections.
	planned := []gateway.PlannedRoute{{ID: 9}, {ID: 8}, {ID: 7}}
	const usable = 30000 - 1024 // below the NodePorts
	ports := func(to string, used int) *host.Ports {
		return &host.Ports{Destination: to + "/udp", Used: used, Usable: usable}
	}
	type use struct {
		to   string
		used int
	}
	// expect compares the routes, and of each VIP the number of connections and the fullest.
	expect := func(when string, inFirst, inSecond int, ofFirst, ofSecond []use, want []host.Route) {
		t.Helper()
		vips, routes := []host.VIP{{VIP: second}, {VIP: first}}, make([]host.Route, len(planned))
		c.describe(vips, routes, planned)
		if !reflect.DeepEqual(routes, want) {
			t.Errorf("%s the routes have %+v, want %+v", when, routes, want)
		}
		for i, uses := range [][]use{ofSecond, ofFirst} {
			for j, u := range uses {
				if j >= len(vips[i].Ports) || vips[i].Ports[j].Ports != *ports(u.to, u.used) {
					t.Errorf("%s %s has %+v, want %+v", when, vips[i].VIP, vips[i].Ports, uses)
					break
				}
			}
		}
		if vips[0].Connections != inSecond || vips[1].Connections != inFirst {
			t.Errorf("%s the VIPs have %d and %d connections, want %d and %d", when, vips[1].Connections, vips[0].Connections, inFirst, inSecond)
		}
		if len(ofSecond) > 0 && len(vips[0].Ports) != worst {
			t.Errorf("%s %s has %d destinations, want the %d fullest", when, second, len(vips[0].Ports), worst)
		}
	}
	expect("before it counted", 0, 0, nil, nil, make([]host.Route, 3))

	all := []host.Route{{Connections: 14, Fullest: ports(bank, 3)}, {}, {Connections: 3, Fullest: ports(bank, 3)}}
	for minute := range 3 {
		count(time.Duration(minute))
		expect("at first", 4, 14, []use{{bank, 3}, {shop, 1}}, []use{{other, 2}}, all)
	}
	for _, e := range ended {
		if err := conntrack.Delete(e); err != nil {
			t.Fatal(err)
		}
	}
	expect("until the next count", 4, 14, []use{{bank, 3}, {shop, 1}}, []use{{other, 2}}, all)
	count(3)
	expect("after the bank's have ended", 2, 14, []use{{bank, 1}, {shop, 1}}, []use{{other, 2}},
		[]host.Route{{Connections: 14, Fullest: ports(other, 2)}, {}, {Connections: 1, Fullest: ports(shop, 1)}})
	vips := []host.VIP{{VIP: first}}
	c.describe(vips, nil, nil)
	if growth := vips[0].Ports[0].GrowthPerSecond; growth >= 0 { // from 3 to 1 within three minutes
		t.Errorf("the bank's ports grow by %v in a second, want less than nothing", growth)
	}
}
