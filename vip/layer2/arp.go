package layer2

import (
	"encoding/binary"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

const (
	arpRequest = 1
	arpReply   = 2
)

var broadcast = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// arpFrame is an ARP packet for IPv4 over Ethernet (RFC 826) in a broadcast frame
// from the sender; nil stands for the zero MAC, and a frame from that goes to the
// zero MAC too, which is lo's.
func arpFrame(op uint16, sender net.HardwareAddr, senderIP netip.Addr, target net.HardwareAddr, targetIP netip.Addr) []byte {
	b := make([]byte, 42)
	if sender != nil {
		copy(b, broadcast)
		copy(b[6:], sender)
	}
	binary.BigEndian.PutUint16(b[12:], unix.ETH_P_ARP)
	binary.BigEndian.PutUint16(b[14:], 1) // hardware: Ethernet
	binary.BigEndian.PutUint16(b[16:], unix.ETH_P_IP)
	b[18], b[19] = 6, 4
	binary.BigEndian.PutUint16(b[20:], op)
	copy(b[22:], sender)
	copy(b[28:], senderIP.AsSlice())
	copy(b[32:], target)
	copy(b[38:], targetIP.AsSlice())
	return b
}

// arpPacket is what a received frame says.
type arpPacket struct {
	op       uint16
	sender   net.HardwareAddr
	senderIP netip.Addr
	target   net.HardwareAddr
}

func parseARP(b []byte) (arpPacket, bool) {
	if len(b) < 42 || binary.BigEndian.Uint16(b[12:]) != unix.ETH_P_ARP ||
		binary.BigEndian.Uint16(b[14:]) != 1 || binary.BigEndian.Uint16(b[16:]) != unix.ETH_P_IP || b[18] != 6 || b[19] != 4 {
		return arpPacket{}, false
	}
	return arpPacket{
		op:       binary.BigEndian.Uint16(b[20:]),
		sender:   net.HardwareAddr(append([]byte(nil), b[22:28]...)),
		senderIP: netip.AddrFrom4([4]byte(b[28:32])),
		target:   net.HardwareAddr(append([]byte(nil), b[32:38]...)),
	}, true
}

// send has the kernel put the link's header before the packet: it then knows where the ARP
// packet begins, also on a VLAN, which the fence's rules need.
func (h *Host) send(ifindex int, frame []byte) error {
	to := &unix.SockaddrLinklayer{Ifindex: ifindex, Protocol: networkOrder(unix.ETH_P_ARP), Halen: 6}
	copy(to.Addr[:], frame[:6])
	return unix.Sendto(h.frames, frame[14:], unix.MSG_DONTWAIT, to)
}

func networkOrder(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}
