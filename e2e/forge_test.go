package e2e

import (
	wire "encoding/binary"
	"errors"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/tunnel"
)

// TCP flags (RFC 9293, 3.1).
const (
	tcpFIN = 1 << iota
	tcpSYN
	tcpRST
	_
	tcpACK
)

// ipv4 is an IPv4 packet (RFC 791).
func ipv4(protocol byte, src, dst netip.Addr, payload []byte) []byte {
	b := []byte{0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, protocol, 0, 0}
	b = append(append(b, src.AsSlice()...), dst.AsSlice()...)
	wire.BigEndian.PutUint16(b[2:], uint16(len(b)+len(payload)))
	wire.BigEndian.PutUint16(b[10:], checksum(b))
	return append(b, payload...)
}

// udpPacket has no UDP checksum, which IPv4 allows (RFC 768).
func udpPacket(src, dst netip.AddrPort, payload string) []byte {
	u := wire.BigEndian.AppendUint16(nil, src.Port())
	u = wire.BigEndian.AppendUint16(u, dst.Port())
	u = wire.BigEndian.AppendUint16(u, uint16(8+len(payload)))
	u = append(wire.BigEndian.AppendUint16(u, 0), payload...)
	return ipv4(unix.IPPROTO_UDP, src.Addr(), dst.Addr(), u)
}

// tcpPacket is one segment with no data.
func tcpPacket(src, dst netip.AddrPort, flags byte) []byte {
	t := wire.BigEndian.AppendUint16(nil, src.Port())
	t = wire.BigEndian.AppendUint16(t, dst.Port())
	t = append(t, 0, 0, 0, 100, 0, 0, 0, 200, 5<<4, flags, 0xff, 0, 0, 0, 0, 0)
	pseudo := append(append([]byte{}, src.Addr().AsSlice()...), dst.Addr().AsSlice()...)
	pseudo = append(pseudo, 0, unix.IPPROTO_TCP, 0, byte(len(t)))
	wire.BigEndian.PutUint16(t[16:], checksum(append(pseudo, t...)))
	return ipv4(unix.IPPROTO_TCP, src.Addr(), dst.Addr(), t)
}

// checksum of RFC 1071, of an even number of bytes.
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		sum += uint32(wire.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// sendRaw sends a packet as it is from a host of the lab.
func (w *world) sendRaw(from string, packet []byte) {
	w.t.Helper()
	ns, err := w.Namespace(from)
	w.must(err)
	w.must(ns.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if err != nil {
			return err
		}
		to := &unix.SockaddrInet4{Addr: [4]byte(packet[16:20])}
		return errors.Join(unix.Sendto(fd, packet, 0, to), unix.Close(fd))
	}))
}

// sendTunnelled sends a packet to a tunnel end from a host of the lab, as VXLAN-GPE
// with IPv4 inside (draft-ietf-nvo3-vxlan-gpe): the outer source is the host's own.
func (w *world) sendTunnelled(from string, end netip.Addr, packet []byte) {
	w.t.Helper()
	cfg := tunnel.DefaultConfig()
	frame := wire.BigEndian.AppendUint32([]byte{0x0c, 0, 0, 1}, cfg.VNI<<8)
	w.sendDatagram(from, netip.AddrPortFrom(end, cfg.Port), append(frame, packet...))
}

// sendDatagram sends one UDP datagram from a host of the lab.
func (w *world) sendDatagram(from string, to netip.AddrPort, payload []byte) {
	w.t.Helper()
	ns, err := w.Namespace(from)
	w.must(err)
	w.must(ns.Do(func() error {
		c, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(to))
		if err != nil {
			return err
		}
		_, err = c.Write(payload)
		return errors.Join(err, c.Close())
	}))
}
