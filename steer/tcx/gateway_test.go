package tcx

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/sallyport/sallyport/tunnel"
	"github.com/sallyport/sallyport/vip"
)

// A gateway: an interface with the VIP, where the partner and a pod's node are neighbours.
const gatewayHost = `ip link add eth0 type veth peer name wire; ip link set wire up; ip link set eth0 address 02:00:00:00:01:01 up; ip addr add 192.0.2.1/24 dev eth0
ip addr add 192.0.2.10/32 dev eth0; ip neigh add 192.0.2.2 lladdr 02:00:00:00:01:02 dev eth0 nud permanent
ip neigh add 192.0.2.200 lladdr 02:00:00:00:01:c8 dev eth0 nud permanent; ip route add 203.0.113.0/24 via 192.0.2.200 mtu lock 1400
ip link add sally0 type vxlan external gpe dstport 4793; ip link set sally0 mtu 1464 up; ip addr add 192.0.2.1/32 dev sally0 noprefixroute
sysctl -qw net.ipv4.ip_forward=1`

var podsNode = netip.MustParseAddr("192.0.2.2")

func openGateway(t *testing.T) (*Gateway, Pair) {
	t.Helper()
	become(t, gatewayHost)
	g, err := FindFront(tunnel.DefaultConfig(), nodeIP, []vip.VIP{{Addr: theVIP, Interface: "eth0"}})
	if err != nil {
		t.Fatal(err)
	}
	p, err := OpenGateway(g)
	opened(t, err)
	t.Cleanup(func() { _ = p.Close() })
	f := aFlow.flow()
	return p, Pair{
		Protocol: 17, Pod: f.Src, Partner: f.Dst, VIP: netip.AddrPortFrom(theVIP, 0x4321), Node: podsNode, Interface: g.VIPs[0].Outer, Counter: 5,
	}
}

// lend gives both halves of a connection a lease for ever, or as changed, and opens the VIP.
func (p *Gateway) lend(t *testing.T, c Pair, out func(*outward), home func(*homeward)) {
	t.Helper()
	if err := errors.Join(p.Let(c), p.Until(theVIP, 1<<62)); err != nil {
		t.Fatal(err)
	}
	inside, outside := keyOf(c.Protocol, c.Pod, c.Partner), keyOf(c.Protocol, c.VIP, c.Partner)
	var o outward
	var h homeward
	if err := errors.Join(p.pairs.out.Lookup(inside, &o), p.pairs.home.Lookup(outside, &h)); err != nil {
		t.Fatal(err)
	}
	o.Until, h.Until = 1<<62, 1<<62
	out(&o)
	home(&h)
	o.Seal, h.Seal = p.pairs.seal.sealed(inside, o), p.pairs.seal.sealed(outside, h)
	if err := errors.Join(p.pairs.out.Put(inside, o), p.pairs.home.Put(outside, h)); err != nil {
		t.Fatal(err)
	}
}

// program finds one by its name.
func (p *Gateway) program(t *testing.T, name string) *ebpf.Program {
	t.Helper()
	return programOf(t, p.links, name)
}

func programOf(t *testing.T, links []link.Link, name string) *ebpf.Program {
	t.Helper()
	for _, l := range links {
		info, err := l.Info()
		if err != nil {
			t.Fatal(err)
		}
		prog, err := ebpf.NewProgramFromID(info.Program)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { prog.Close() })
		if i, err := prog.Info(); err == nil && i.Name == name {
			return prog
		}
	}
	t.Fatalf("no program is called %s", name)
	return nil
}

func ran(t *testing.T, prog *ebpf.Program, frame []byte) (int32, []byte) {
	t.Helper()
	frame = slices.Clone(frame)
	clear(frame[:6]) // it is run as if it came by lo, and is for this host
	opts := ebpf.RunOptions{Data: frame, DataOut: make([]byte, 4096)}
	code, err := prog.Run(&opts)
	if err != nil {
		t.Fatal(err)
	}
	return int32(code), opts.DataOut
}

// wrap is a packet as the tunnel carries it.
func wrap(frame []byte, change func(outer []byte)) []byte {
	outer := make([]byte, onWire)
	copy(outer, frame[:12])
	outer[12] = 8
	ip, u := outer[14:34], outer[34:42]
	ip[0], ip[8], ip[9] = 0x45, 64, 17
	binary.BigEndian.PutUint16(ip[2:], uint16(around+len(frame)-ethernet))
	copy(ip[12:], podsNode.AsSlice())
	copy(ip[16:], theVIP.AsSlice())
	binary.BigEndian.PutUint16(u, 40000)
	binary.BigEndian.PutUint16(u[2:], 4793)
	binary.BigEndian.PutUint16(u[4:], uint16(udp+gpe+len(frame)-ethernet))
	copy(outer[42:], []byte{0x0c, 0, 0, 1, 0, 0, 51, 0})
	change(outer)
	binary.BigEndian.PutUint16(ip[10:], 0)
	binary.BigEndian.PutUint16(ip[10:], ^sum(ip))
	return append(outer, frame[ethernet:]...)
}

// check makes the sum of TCP or UDP right.
func check(frame []byte) []byte {
	at := 34 + 6
	if frame[23] == 6 {
		at = 34 + 16
	}
	binary.BigEndian.PutUint16(frame[at:], 0)
	binary.BigEndian.PutUint16(frame[at:], ^carriedSum(frame))
	return frame
}

// carriedSum is 0xffff where the sum of TCP or UDP is right.
func carriedSum(frame []byte) uint16 {
	carried := slices.Clone(frame[34:])
	pseudo := append(slices.Clone(frame[26:34]), 0, frame[23], byte(len(carried)>>8), byte(len(carried)))
	if len(carried)%2 == 1 {
		carried = append(carried, 0)
	}
	return sum(append(pseudo, carried...))
}

func reversed(frame []byte) []byte {
	f := slices.Clone(frame)
	copy(f[26:30], frame[30:34])
	copy(f[30:34], theVIP.AsSlice())
	copy(f[34:36], frame[36:38])
	copy(f[36:38], []byte{0x43, 0x21})
	binary.BigEndian.PutUint16(f[24:], 0)
	binary.BigEndian.PutUint16(f[24:], ^sum(f[14:34]))
	return f
}

func same[T any](T) {}

// Tunnel packets to a VIP come by the interface of its other address, if it has one.
func TestAVIPOfTwoNetworksHasTwoInterfaces(t *testing.T) {
	become(t, gatewayHost+"; ip link add eth1 type veth peer name inside; ip link set eth1 up")
	two := vip.VIP{Addr: theVIP, Interface: "eth0", Via: netip.MustParseAddr("10.0.0.10"), ViaInterface: "eth1"}
	g, err := FindFront(tunnel.DefaultConfig(), nodeIP, []vip.VIP{two})
	if err != nil {
		t.Fatal(err)
	}
	var index [2]int
	for i, name := range []string{"eth0", "eth1"} {
		link, err := net.InterfaceByName(name)
		if err != nil {
			t.Fatal(err)
		}
		index[i] = link.Index
	}
	if want := (Address{VIP: theVIP, Inside: two.Via, Outer: index[0], Inner: index[1]}); !slices.Equal(g.VIPs, []Address{want}) {
		t.Errorf("%+v, want %+v", g.VIPs, want)
	}
}

func TestAsManyVIPsAsThereIsRoomFor(t *testing.T) {
	become(t, gatewayHost)
	g, err := FindFront(tunnel.DefaultConfig(), nodeIP, []vip.VIP{{Addr: theVIP, Interface: "eth0"}})
	if err != nil {
		t.Fatal(err)
	}
	one := g.VIPs[0]
	for n := range mostVIPs - 1 {
		one.VIP = netip.AddrFrom4([4]byte{192, 0, 2, byte(100 + n)})
		g.VIPs = append(g.VIPs, one)
	}
	p, err := OpenGateway(g)
	opened(t, err)
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	g.VIPs = append(g.VIPs, one)
	if _, err := OpenGateway(g); err == nil || !strings.Contains(err.Error(), "65 VIPs are more than the 64 that there is room for") {
		t.Errorf("one VIP more: %v", err)
	}
}

func TestWhatAGatewayTranslatesBesideNetfilter(t *testing.T) {
	p, c := openGateway(t)
	overTCP := c
	overTCP.Protocol = 6
	now, err := boottime()
	if err != nil {
		t.Fatal(err)
	}
	out, home := p.program(t, "sally_from_wire"), p.program(t, "sally_replies")
	for _, c2 := range []struct {
		what  string
		in    change
		outer func([]byte)
		out   func(*outward)
		home  func(*homeward)
		fence time.Duration
		taken bool // out, and home where nothing is said of the tunnel
	}{
		{what: "a datagram", taken: true},
		{what: "a segment", in: change{flags: 0x10, len: 7}, taken: true},
		{what: "the largest that the way out has room for", in: change{len: 1400 - 28}, taken: true},
		{what: "one byte more", in: change{len: 1400 - 27}, outer: func(b []byte) { b[34]++ }}, // for which there is room home
		{what: "SYN", in: change{flags: 0x02}},
		{what: "FIN", in: change{flags: 0x11}},
		{what: "RST", in: change{flags: 0x04}},
		{what: "the last hop", in: change{ip: func(ip []byte) { ip[8] = 1 }}},
		{what: "a fragment", in: change{ip: func(ip []byte) { ip[6] = 0x20 }}},
		{what: "options", in: change{ip: func(ip []byte) { ip[0] = 0x46 }}},
		{what: "ICMP", in: change{ip: func(ip []byte) { ip[9] = 1 }}},
		{what: "no lease", out: func(o *outward) { o.Until = now }, home: func(h *homeward) { h.Until = now }},
		{what: "only counted", out: func(o *outward) { o.Open = 0 }, home: func(h *homeward) { h.Open = 0 }},
		{what: "a closed fence", fence: -1},
		{what: "a fence that was open", fence: time.Duration(now)},
		{what: "another VIP's fence", out: func(o *outward) { o.Fence = 1 }, home: func(h *homeward) { h.Fence = 1 }},
		{what: "congestion", outer: func(b []byte) { b[15] = 3 }},
		{what: "another node", outer: func(b []byte) { b[29]++ }},
		{what: "another end of the tunnel", outer: func(b []byte) { b[33]++ }},
		{what: "another port of the tunnel", outer: func(b []byte) { b[37]++ }},
		{what: "another network in the tunnel", outer: func(b []byte) { b[48]++ }},
		{what: "another interface", out: func(o *outward) { o.Interface++ }, home: func(h *homeward) { h.Remote = 1 }},
	} {
		if c2.outer == nil {
			c2.outer = func([]byte) {}
		}
		if c2.out == nil {
			c2.out, c2.home = same[*outward], same[*homeward]
		}
		for _, each := range []Pair{c, overTCP} {
			p.lend(t, each, c2.out, c2.home)
		}
		if c2.fence != 0 {
			if err := p.Until(theVIP, max(0, c2.fence)); err != nil {
				t.Fatal(err)
			}
		}
		frame := packet(c2.in)
		if verdict, _ := ran(t, out, wrap(frame, c2.outer)); (verdict == taken) != c2.taken || !c2.taken && verdict != goOn {
			t.Errorf("%s, out: verdict %d, want taken %t", c2.what, verdict, c2.taken)
		}
		for _, each := range []Pair{c, overTCP} { // the first may have ended it
			p.lend(t, each, c2.out, c2.home)
		}
		if c2.fence != 0 {
			if err := p.Until(theVIP, max(0, c2.fence)); err != nil {
				t.Fatal(err)
			}
		}
		if wrap(frame, c2.outer)[15] == 0 && bytes.Equal(wrap(frame, c2.outer), wrap(frame, func([]byte) {})) {
			if verdict, _ := ran(t, home, reversed(frame)); (verdict == taken) != c2.taken || !c2.taken && verdict != goOn {
				t.Errorf("%s, home: verdict %d, want taken %t", c2.what, verdict, c2.taken)
			}
		}
	}
}

// What leaves is what the slow path makes of a packet, in both directions.
func TestWhatAGatewayMakesOfAPacket(t *testing.T) {
	p, c := openGateway(t)
	out, home := p.program(t, "sally_from_wire"), p.program(t, "sally_replies")
	for what, in := range map[string][]byte{
		"a datagram":              check(packet(change{len: 13})),
		"a datagram without sum":  packet(change{len: 13}),
		"a segment":               check(packet(change{flags: 0x10, len: 9})),
		"a datagram to be judged": check(packet(change{len: 64, ip: func(ip []byte) { ip[1] = 0xb8 }})),
	} {
		each := c
		each.Protocol = in[23]
		p.lend(t, each, same[*outward], same[*homeward])
		want := slices.Clone(in)
		copy(want, []byte{2, 0, 0, 0, 1, 0xc8, 2, 0, 0, 0, 1, 1})
		want[22]--
		copy(want[26:30], theVIP.AsSlice())
		copy(want[34:36], []byte{0x43, 0x21})
		binary.BigEndian.PutUint16(want[24:], 0)
		binary.BigEndian.PutUint16(want[24:], ^sum(want[14:34]))
		if what != "a datagram without sum" {
			check(want)
		}
		if verdict, got := ran(t, out, wrap(in, func([]byte) {})); verdict != taken || !bytes.Equal(got, want) {
			t.Errorf("%s: %d\n% x, want\n% x", what, verdict, got, want)
		}
		reply := reversed(in)
		if what != "a datagram without sum" {
			check(reply)
		}
		verdict, got := ran(t, home, reply)
		if verdict != taken || len(got) != len(reply)+around {
			t.Fatalf("%s: %d, %d bytes from %d", what, verdict, len(got), len(reply))
		}
		if want := append(net.HardwareAddr{2, 0, 0, 0, 1, 2}, 2, 0, 0, 0, 1, 1); !bytes.Equal(got[:12], want) {
			t.Errorf("%s: Ethernet header % x, want % x", what, got[:12], want)
		}
		if ip := got[14:34]; sum(ip) != 0xffff || !bytes.Equal(ip[12:], []byte{192, 0, 2, 1, 192, 0, 2, 2}) {
			t.Errorf("%s: outer header % x", what, ip)
		}
		wantIn := slices.Clone(reply)
		wantIn[22]--
		copy(wantIn[30:34], podAddr.AsSlice())
		copy(wantIn[36:38], aFlow.SrcPort[:])
		binary.BigEndian.PutUint16(wantIn[24:], 0)
		binary.BigEndian.PutUint16(wantIn[24:], ^sum(wantIn[14:34]))
		if what != "a datagram without sum" {
			check(wantIn)
		}
		if !bytes.Equal(got[onWire:], wantIn[14:]) {
			t.Errorf("%s: inside\n% x, want\n% x", what, got[onWire:], wantIn[14:])
		}
	}
	o, h, err := p.Counts(c.Counter)
	if err != nil || o.Packets != 4 || h.Packets != 4 || o.Bytes != h.Bytes || o.Bytes != 2*(28+13)+40+9+28+64 {
		t.Errorf("counted %+v and %+v, %v", o, h, err)
	}
}

func TestWhatAGatewayIsToEndIsGoneAtOnce(t *testing.T) {
	p, c := openGateway(t)
	out, home := p.program(t, "sally_from_wire"), p.program(t, "sally_replies")
	in := check(packet(change{}))
	goes := func() bool {
		there, _ := ran(t, out, wrap(in, func([]byte) {}))
		back, _ := ran(t, home, reversed(in))
		if there != back {
			t.Errorf("out %d, home %d", there, back)
		}
		return there == taken
	}
	seen := func(k Known) bool { return k == Known{Pod: podAddr, Node: podsNode, Counter: 5} }
	for _, s := range []struct {
		what  string
		over  func(Known) bool
		stays bool
	}{{"others", func(k Known) bool { return !seen(k) }, true}, {"the connection", seen, false}} {
		p.lend(t, c, same[*outward], same[*homeward])
		if n, err := p.Flows(); n != 1 || err != nil || !goes() {
			t.Errorf("%d flows, %v", n, err)
		}
		if err := p.End(s.over); err != nil {
			t.Fatal(err)
		}
		if goes() != s.stays {
			t.Errorf("%s ended: it goes beside netfilter: %t", s.what, goes())
		}
	}
	// What takes a translation over ends what had it.
	p.lend(t, c, same[*outward], same[*homeward])
	next := c
	next.Pod = netip.AddrPortFrom(netip.MustParseAddr("10.9.0.3"), c.Pod.Port())
	if err := p.Let(next); err != nil {
		t.Fatal(err)
	}
	if goes() {
		t.Error("a connection whose translation is another's goes beside netfilter")
	}
	overTCP := c
	overTCP.Protocol = 6
	for _, last := range []struct {
		prog  *ebpf.Program
		frame func([]byte) []byte
	}{{out, func(b []byte) []byte { return wrap(b, func([]byte) {}) }}, {home, reversed}} {
		p.lend(t, overTCP, same[*outward], same[*homeward])
		ran(t, last.prog, last.frame(packet(change{flags: 0x11})))
		if n, err := p.Flows(); n != 0 || err != nil {
			t.Errorf("%d flows after a connection's end, %v", n, err)
		}
	}
}
