package chaos

import (
	"cmp"
	"fmt"
	"net/netip"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/e2e/lab"
	"github.com/sallyport/sallyport/flows/conntrack"
)

const gatewayZone = 51

// translations are the connections of the zone in node j's kernel, of the pods' sockets
// given or of all, and what they are seen as.
func (w *world) translations(j int) (map[conntrack.Tuple]netip.AddrPort, error) {
	ns, err := w.Namespace(lab.NodeName(j))
	if err != nil {
		return nil, err
	}
	found := map[conntrack.Tuple]netip.AddrPort{}
	return found, ns.Do(func() error {
		_, err := conntrack.Dump(conntrack.IPv4, conntrack.Mark{}, func(e *conntrack.Entry) bool {
			if e.Zone == gatewayZone && e.Status&conntrack.SeenReply != 0 {
				found[e.Original] = netip.AddrPortFrom(e.Reply.Dst, cmp.Or(e.Reply.DstPort, e.Reply.ICMPID))
			}
			return false
		})
		return err
	})
}

// everywhere says which of the traffic's connections is not in every gateway's kernel as
// the partner sees it, or pings as another has them: what a gateway lacks, dies with the
// others.
func (w *world) everywhere() error {
	pings := map[conntrack.Tuple]netip.AddrPort{}
	for _, j := range w.Options.GatewayNodes {
		has, err := w.translations(j)
		if err != nil {
			return err
		}
		for _, t := range w.talkers {
			if err := t.known(); err != nil {
				return err
			}
			tuple := t.pings()
			if got, ok := has[tuple]; !ok || got.Addr() != udpVIP || pings[tuple].IsValid() && got != pings[tuple] {
				return fmt.Errorf("n%d has %s as %s, want %s as everywhere (%s)", j, tuple, got, udpVIP, pings[tuple])
			}
			pings[tuple] = has[tuple]
			for tuple, seen := range t.tuples() {
				if got := has[tuple]; got != seen {
					return fmt.Errorf("n%d has %s as %s, the partner sees it as %s", j, tuple, got, seen)
				}
			}
		}
	}
	return nil
}

// tuples of what is established, and what the partner sees them as.
func (t *talker) tuples() map[conntrack.Tuple]netip.AddrPort {
	all := map[conntrack.Tuple]netip.AddrPort{}
	add := func(protocol uint8, from netip.AddrPort, port uint16, seen netip.AddrPort) {
		all[conntrack.Tuple{
			Src: from.Addr().Unmap(), SrcPort: from.Port(), Dst: lab.PartnerAddr, DstPort: port, Protocol: protocol,
		}] = seen
	}
	add(unix.IPPROTO_TCP, t.ask.Local(), lab.TCPPort, t.ask.Source())
	add(unix.IPPROTO_TCP, t.listen.Local(), lab.PushPort, t.listen.Source())
	add(unix.IPPROTO_UDP, t.echo.Local(), lab.UDPPort, t.echoSource)
	return all
}

// pings is the flow of the talker's pings.
func (t *talker) pings() conntrack.Tuple {
	return conntrack.Tuple{Src: t.ping.Local().Addr(), Dst: lab.PartnerAddr, Protocol: unix.IPPROTO_ICMP,
		ICMPID: t.ping.Local().Port(), ICMPType: uint8(ipv4.ICMPTypeEcho)}
}

// forgotten says where there still is a connection of an address.
func (w *world) forgotten(addr netip.Addr) error {
	for _, j := range w.Options.GatewayNodes {
		has, err := w.translations(j)
		if err != nil {
			return err
		}
		for tuple := range has {
			if tuple.Src == addr {
				return fmt.Errorf("n%d still has %s of a pod that is gone", j, tuple)
			}
		}
	}
	return nil
}
