package tcx

import (
	"bytes"
	"encoding/binary"
	"net"
	"os/exec"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/tunnel"
)

// tap is one end of a veth, where packets are put in whole and come out whole, however large.
type tap struct {
	t  *testing.T
	fd int
}

func tapped(t *testing.T, name string) tap {
	t.Helper()
	dev, err := net.InterfaceByName(name)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(network16(unix.ETH_P_ALL)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	late := unix.NsecToTimeval(int64(10 * time.Second))
	for _, err := range []error{
		unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: dev.Index, Protocol: uint16(network16(unix.ETH_P_ALL))}),
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &late),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return tap{t, fd}
}

// virtual is the length of struct virtio_net_hdr, which goes before each packet.
const virtual = 10

// put a packet in, as a network card does, or as one of many segments that the kernel put together.
func (p tap) put(frame []byte, segment uint16) {
	p.t.Helper()
	header := make([]byte, virtual)
	if segment != 0 {
		header[0], header[1] = unix.VIRTIO_NET_HDR_F_NEEDS_CSUM, unix.VIRTIO_NET_HDR_GSO_TCPV4
		for at, v := range map[int]uint16{2: ethernet + ipv4 + tcp, 4: segment, 6: ethernet + ipv4, 8: 16} {
			binary.NativeEndian.PutUint16(header[at:], v)
		}
	}
	if _, err := unix.Write(p.fd, append(header, frame...)); err != nil {
		p.t.Fatalf("put %d bytes in: %v", len(frame), err)
	}
}

// next tunnel packet that comes out.
func (p tap) next() []byte {
	p.t.Helper()
	for {
		b := make([]byte, virtual+1<<17)
		n, err := unix.Read(p.fd, b)
		if err != nil {
			p.t.Fatalf("wait for a packet: %v", err)
		}
		if f := b[virtual:n]; len(f) > onWire && f[23] == unix.IPPROTO_UDP && binary.BigEndian.Uint16(f[36:]) == 4793 {
			return f
		}
	}
}

// As large as the outer header can say; TCP makes packets of 65018 bytes of segments of 1412.
func TestTheLargestPacketsGoBesideNetfilter(t *testing.T) {
	p, pod := open(t)
	if err := p.Apply(state(pod)); err != nil {
		t.Fatal(err)
	}
	overTCP := aFlow
	overTCP.Protocol = 6
	p.put(t, overTCP, pod, func(*flow) {})
	far, wire := tapped(t, "far"), tapped(t, "wire")
	sized := func(whole int) []byte { return packet(change{flags: 0x10, len: whole - ethernet - ipv4 - tcp}) }
	const (
		whole   = 0xffff - tunnel.Overhead            // that the wire takes for one packet, gso_max_size
		largest = 0xffff - tunnel.Overhead + ethernet // that the header can say
	)
	far.put(sized(largest+1), 1412) // which is to be missing in what follows
	for _, size := range []int{1000, 65018, whole, largest} {
		in := sized(size)
		segment, want := uint16(1412), size+tunnel.Overhead
		switch size {
		case 1000:
			segment = 0
		case largest:
			want = ethernet + tunnel.Overhead + ipv4 + tcp + 1412
		}
		far.put(in, segment)
		out := wire.next()
		if len(out) != want {
			t.Fatalf("%d bytes from %d, want %d", len(out), size, want)
		}
		if ip := out[14:34]; sum(ip) != 0xffff || int(binary.BigEndian.Uint16(ip[2:])) != len(out)-14 || int(binary.BigEndian.Uint16(out[38:])) != len(out)-34 {
			t.Errorf("outer headers % x of %d bytes", out[14:42], len(out))
		}
		if !bytes.Equal(out[onWire+12:][:12], in[26:38]) {
			t.Errorf("inside % x, want % x", out[onWire+12:][:12], in[26:38])
		}
	}
	if out, _, err := p.Counts(); err != nil || out.Bytes != 1000+65018+whole+largest-4*ethernet {
		t.Errorf("%+v went beside netfilter, %v", out, err)
	}
}

// A lease is the slow path's word: what the pod's program sends to the device gets none by it.
func TestOnlyTheSlowPathGivesLeases(t *testing.T) {
	p, pod := open(t)
	if err := p.Apply(state(pod)); err != nil {
		t.Fatal(err)
	}
	const script = `sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.pod.rp_filter=0; ip link set pod address 02:00:00:00:02:01
ip addr add 192.0.2.10/32 dev eth0; ip route add 10.9.0.2 dev pod; ip route add 203.0.113.0/24 encap ip id 51 src 192.0.2.1 dst 192.0.2.10 dev sally0
ip rule add blackhole iif sally0`
	if out, err := exec.Command("sh", "-ec", script).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	far, home := tapped(t, "far"), tapped(t, "lo") // the VIP is this host's own, so that nothing passes the device by
	far.put(packet(change{}), 0)
	home.next()
	var learned flow
	if err := p.kernel.flows.Lookup(aFlow, &learned); err != nil || learned.Remote != remote(theVIP) || learned.Until == 0 {
		t.Fatalf("the slow path's packet left %+v, %v", learned, err)
	}
	p.put(t, aFlow, pod, func(*flow) {})
	far.put(packet(change{}), 0)
	home.next()
	var lent flow
	if err := p.kernel.flows.Lookup(aFlow, &lent); err != nil || lent.Until != 1<<62 {
		t.Errorf("the program's own packet made %+v of a lease, %v", lent, err)
	}
	if out, _, err := p.Counts(); err != nil || out.Packets != 1 {
		t.Errorf("%+v went beside netfilter, %v", out, err)
	}
}

// Sums of headers carry twice.
func TestFolded(t *testing.T) {
	for _, in := range []uint32{0, 1, 0xffff, 0x10000, 0x1ffff, 0x8fff9, 10 * 0xffff} {
		code := append(asm.Instructions{asm.LoadImm(asm.R1, int64(in), asm.DWord)}, folded()...)
		prog, err := load("folded", ebpf.AttachTCXIngress, append(code, asm.Mov.Reg(asm.R0, asm.R1), asm.Return()))
		if err != nil {
			t.Fatal(err)
		}
		defer prog.Close()
		want := in
		for want > 0xffff {
			want = want&0xffff + want>>16
		}
		if got, err := prog.Run(&ebpf.RunOptions{Data: make([]byte, 64)}); err != nil || got != want {
			t.Errorf("%#x became %#x, %v, want %#x", in, got, err, want)
		}
	}
}
