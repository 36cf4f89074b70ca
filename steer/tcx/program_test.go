package tcx

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/sallyport/sallyport/e2e/netns"
	"github.com/sallyport/sallyport/tunnel"
)

const attachEnv = "SALLYPORT_TEST_ATTACH"

func TestMain(m *testing.M) {
	if os.Getenv(attachEnv) != "" {
		_, err := Open(Device{Index: 1, MTU: 1464})
		fmt.Println(err)
		return
	}
	os.Exit(m.Run())
}

// A node: a pod's interface, an underlay with a neighbour that has the VIP, and the tunnel.
const node = `ip link add eth0 type veth peer name wire; ip link set wire up; ip link set eth0 address 02:00:00:00:01:01 up; ip addr add 192.0.2.1/24 dev eth0
ip neigh add 192.0.2.10 lladdr 02:00:00:00:01:0a dev eth0 nud permanent
ip link add pod type veth peer name far; ip link set pod up; ip link set far up
ip link add sally0 type vxlan external gpe dstport 4793; ip link set sally0 mtu 1464 up
sysctl -qw net.ipv4.ip_forward=1`

var (
	podAddr = netip.MustParseAddr("10.9.0.2")
	theVIP  = netip.MustParseAddr("192.0.2.10")
	nodeIP  = netip.MustParseAddr("192.0.2.1")
	podMAC  = net.HardwareAddr{2, 0, 0, 0, 2, 2}
	hostMAC = net.HardwareAddr{2, 0, 0, 0, 2, 1}
	aFlow   = key{Src: podAddr.As4(), Dst: [4]byte{203, 0, 113, 5}, SrcPort: [2]byte{0x12, 0x34}, DstPort: [2]byte{0x01, 0xbb}, Protocol: 17}
)

// become a host of its own, which a script makes.
func become(t *testing.T, script string) {
	t.Helper()
	netns.Test(t)
	if out, err := exec.Command("sh", "-ec", script).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// opened ends the test where the kernel did not take the programs, with all that it said of them.
func opened(t *testing.T, err error) {
	t.Helper()
	var v *ebpf.VerifierError
	if errors.As(err, &v) {
		t.Fatalf("%+v", v)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T) (*Path, int) {
	t.Helper()
	become(t, node)
	cfg := tunnel.DefaultConfig()
	d, err := Find(cfg, nodeIP)
	if err != nil {
		t.Fatal(err)
	}
	p, err := Open(d)
	opened(t, err)
	t.Cleanup(func() { _ = p.Close() })
	pod, err := net.InterfaceByName("pod")
	if err != nil {
		t.Fatal(err)
	}
	return p, pod.Index
}

func state(pod int) State {
	return State{Homes: map[netip.Addr]int{podAddr: pod}, Remotes: []netip.Addr{theVIP}, Peers: []netip.Addr{theVIP}}
}

func remote(a netip.Addr) uint32 { b := a.As4(); return binary.BigEndian.Uint32(b[:]) }

// put makes a flow fresh for ever, or not.
func (p *Path) put(t *testing.T, k key, pod int, change func(*flow)) {
	t.Helper()
	f := flow{Until: 1 << 62, Remote: remote(theVIP), Local: remote(nodeIP), Interface: uint32(pod), Open: 1, Replied: 1}
	f.MACs = [12]byte(append(slices.Clone(podMAC), hostMAC...))
	change(&f)
	f.Way, f.Home = p.kernel.seal.way(k, f), p.kernel.seal.home(k, f)
	if err := p.kernel.flows.Put(k, f); err != nil {
		t.Fatal(err)
	}
}

// change is what is unusual about a packet.
type change struct {
	ip    func(header []byte)
	flags byte // of TCP, which it then is
	len   int  // of what is carried
}

func packet(c change) []byte {
	frame := append(append(append([]byte{}, hostMAC...), podMAC...), 0x08, 0x00)
	ip := make([]byte, ipv4)
	ip[0], ip[5], ip[6], ip[8], ip[9] = 0x45, 7, 0x40, 64, 17
	copy(ip[12:], aFlow.Src[:])
	copy(ip[16:], aFlow.Dst[:])
	carried := make([]byte, udp+c.len)
	if c.flags != 0 {
		carried, ip[9] = make([]byte, tcp+c.len), 6
		carried[12], carried[13] = 0x50, c.flags
	}
	copy(carried, aFlow.SrcPort[:])
	copy(carried[2:], aFlow.DstPort[:])
	binary.BigEndian.PutUint16(ip[2:], uint16(ipv4+len(carried)))
	if c.ip != nil {
		c.ip(ip)
	}
	binary.BigEndian.PutUint16(ip[10:], ^sum(ip))
	return append(append(frame, ip...), carried...)
}

func sum(b []byte) uint16 {
	var s uint32
	for i := 0; i < len(b); i += 2 {
		s += uint32(b[i])<<8 | uint32(b[i+1])
	}
	for s > 0xffff {
		s = s&0xffff + s>>16
	}
	return uint16(s)
}

const taken = 7 // TC_ACT_REDIRECT

// through runs the pod's program over a packet that came by an interface.
func (p *Path) through(t *testing.T, frame []byte, from int) (verdict int32, out []byte) {
	t.Helper()
	ctx := make([]byte, 192) // struct __sk_buff
	binary.NativeEndian.PutUint32(ctx[skbInterface:], uint32(from))
	out = make([]byte, 2048)
	opts := ebpf.RunOptions{Data: frame, DataOut: out, Context: ctx}
	code, err := p.pod.Run(&opts)
	if err != nil {
		t.Fatal(err)
	}
	return int32(code), opts.DataOut
}

func TestWhatGoesBesideNetfilter(t *testing.T) {
	p, pod := open(t)
	if err := p.Apply(state(pod)); err != nil {
		t.Fatal(err)
	}
	same := func(*flow) {}
	overTCP := aFlow
	overTCP.Protocol = 6
	for _, c := range []struct {
		what  string
		in    change
		flow  func(*flow)
		taken bool
	}{
		{"a datagram of a fresh flow", change{}, same, true},
		{"a segment", change{flags: 0x10}, same, true},
		{"SYN", change{flags: 0x02}, same, false},
		{"FIN", change{flags: 0x11}, same, false},
		{"RST", change{flags: 0x04}, same, false},
		{"the last hop", change{ip: func(ip []byte) { ip[8] = 1 }}, same, false},
		{"a first fragment", change{ip: func(ip []byte) { ip[6] = 0x20 }}, same, false},
		{"a later fragment", change{ip: func(ip []byte) { ip[6], ip[7] = 0, 3 }}, same, false},
		{"options", change{ip: func(ip []byte) { ip[0] = 0x46 }}, same, false},
		{"ICMP", change{ip: func(ip []byte) { ip[9] = 1 }}, same, false},
		{"another source", change{ip: func(ip []byte) { ip[15] = 3 }}, same, false},
		{"the largest that fits", change{len: 1464 - 28}, same, true},
		{"one byte more", change{len: 1464 - 27}, same, false},
		{"an expired flow", change{}, func(f *flow) { f.Until = 1 }, false},
		{"one that tracking would judge", change{}, func(f *flow) { f.Open = 0 }, false},
		{"another interface's", change{}, func(f *flow) { f.Interface++ }, false},
		{"one not seen here", change{}, func(f *flow) { f.Interface = 0 }, false},
	} {
		p.put(t, aFlow, pod, c.flow)
		p.put(t, overTCP, pod, c.flow)
		if verdict, _ := p.through(t, packet(c.in), pod); (verdict == taken) != c.taken || !c.taken && verdict != goOn {
			t.Errorf("%s: verdict %d, want taken %t", c.what, verdict, c.taken)
		}
	}
	if err := p.kernel.flows.Lookup(overTCP, new(flow)); err != nil {
		t.Errorf("a flow of TCP is gone without a segment that ended it: %v", err)
	}
	p.through(t, packet(change{flags: 0x11}), pod)
	if err := p.kernel.flows.Lookup(overTCP, new(flow)); !errors.Is(err, ebpf.ErrKeyNotExist) {
		t.Errorf("a flow that ended is still there: %v", err)
	}
}

// The packet on the wire is what the tunnel device makes: outside, and inside but for the
// hop that it has made.
func TestThePacketOnTheWire(t *testing.T) {
	p, pod := open(t)
	if err := p.Apply(state(pod)); err != nil {
		t.Fatal(err)
	}
	for inside, outside := range map[uint8]uint8{0: 0, 1: 1, 2: 2, 3: 2, 0xb8: 0} {
		p.put(t, aFlow, pod, func(*flow) {})
		in := packet(change{ip: func(ip []byte) { ip[1] = inside }})
		verdict, out := p.through(t, in, pod)
		if verdict != taken || len(out) != len(in)+tunnel.Overhead {
			t.Fatalf("verdict %d, %d bytes from %d", verdict, len(out), len(in))
		}
		if want := append(append([]byte{2, 0, 0, 0, 1, 0x0a}, 2, 0, 0, 0, 1, 1), 8, 0); !bytes.Equal(out[:14], want) {
			t.Errorf("Ethernet header % x, want % x", out[:14], want)
		}
		ip, u, size := out[14:34], out[34:42], uint16(len(out)-14)
		if ip[0] != 0x45 || ip[1] != outside || binary.BigEndian.Uint16(ip[2:]) != size || binary.BigEndian.Uint16(ip[6:]) != 0 ||
			ip[8] != 64 || ip[9] != 17 || sum(ip) != 0xffff || !bytes.Equal(ip[12:], []byte{192, 0, 2, 1, 192, 0, 2, 10}) {
			t.Errorf("outer header % x of %d bytes, its sum %x", ip, size, sum(ip))
		}
		if from := binary.BigEndian.Uint16(u); from < 32768 || binary.BigEndian.Uint16(u[2:]) != 4793 ||
			binary.BigEndian.Uint16(u[4:]) != size-20 || u[6] != 0 || u[7] != 0 {
			t.Errorf("outer datagram % x", u)
		}
		if want := []byte{0x0c, 0, 0, 1, 0, 0, 51, 0}; !bytes.Equal(out[42:50], want) {
			t.Errorf("VXLAN-GPE header % x, want % x", out[42:50], want)
		}
		in[22]-- // its time to live, and the sum of it
		if inner := out[50:]; sum(inner[:20]) != 0xffff || !bytes.Equal(inner[:10], in[14:24]) || !bytes.Equal(inner[12:], in[26:]) {
			t.Errorf("inside % x, want % x", inner[:20], in[14:34])
		}
	}
	// A VIP that this host has itself is reached through the device.
	if out, err := exec.Command("sh", "-ec", "ip neigh del 192.0.2.10 dev eth0; ip addr add 192.0.2.10/32 dev eth0").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	p.put(t, aFlow, pod, func(*flow) {})
	if verdict, out := p.through(t, packet(change{}), pod); verdict != taken || len(out) != len(packet(change{})) {
		t.Errorf("verdict %d, %d bytes", verdict, len(out))
	}
}

func TestWhatIsTakenAwayEndsAtOnce(t *testing.T) {
	p, pod := open(t)
	there := func() bool {
		return p.kernel.flows.Lookup(aFlow, new(flow)) == nil
	}
	for _, c := range []struct {
		what  string
		state func(*State)
		stays bool
	}{
		{"nothing", func(*State) {}, true},
		{"a pod more", func(s *State) { s.Homes[netip.MustParseAddr("10.9.0.3")] = pod }, true},
		{"the pod", func(s *State) { clear(s.Homes) }, false},
		{"its interface", func(s *State) { s.Homes[podAddr] = 1 }, false},
		{"the VIP", func(s *State) { s.Remotes = nil }, false},
		{"another VIP", func(s *State) { s.Remotes = []netip.Addr{nodeIP} }, false},
	} {
		if err := p.Apply(state(pod)); err != nil {
			t.Fatal(err)
		}
		p.put(t, aFlow, pod, func(*flow) {})
		s := state(pod)
		c.state(&s)
		if err := p.Apply(s); err != nil {
			t.Fatal(err)
		}
		if there() != c.stays {
			t.Errorf("%s: the flow is there: %t", c.what, there())
		}
	}
}

func TestIPsecKeepsToTheDevice(t *testing.T) {
	p, _ := open(t)
	if p.Device().Underlay == 0 {
		t.Fatal("without IPsec nothing goes past the device")
	}
	if out, err := exec.Command("ip", "xfrm", "policy", "add", "dst", "192.0.2.0/24", "dir", "out", "tmpl", "dst", "192.0.2.10", "proto", "esp", "mode", "tunnel").CombinedOutput(); err != nil {
		t.Skipf("no IPsec here: %s", out)
	}
	if d, err := Find(tunnel.DefaultConfig(), nodeIP); err != nil || d.Underlay != 0 {
		t.Errorf("%+v, %v: packets would go past IPsec", d, err)
	}
}

func TestWhatIsMissingIsNamed(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to run without rights")
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), attachEnv+"=yes")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "it needs the capabilities BPF and NET_ADMIN") {
		t.Errorf("without rights: %v %s", err, out)
	}
}

func TestFlowsAreCounted(t *testing.T) {
	p, pod := open(t)
	const fresh = 10_000 // more than are read at once
	for i := range fresh {
		k := aFlow
		binary.BigEndian.PutUint16(k.SrcPort[:], uint16(i))
		p.put(t, k, pod, func(*flow) {})
	}
	for i, old := range []func(*flow){
		func(f *flow) { f.Until = 1 }, func(f *flow) { f.Open = 0 }, func(f *flow) { f.Interface = 0 },
	} {
		k := aFlow
		k.Protocol = uint32(i)
		p.put(t, k, pod, old)
	}
	if n, err := p.Flows(); n != fresh || err != nil {
		t.Errorf("%d flows, %v, want %d", n, err, fresh)
	}
}
