package lab

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
)

// ARP operations (RFC 826).
const (
	arpRequest = 1
	arpReply   = 2
)

// arpFrame is an Ethernet frame with an ARP packet for IPv4.
type arpFrame struct {
	to, from  net.HardwareAddr // Ethernet
	op        uint16
	senderMAC net.HardwareAddr
	sender    netip.Addr
	targetMAC net.HardwareAddr
	target    netip.Addr
}

var (
	broadcast = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	arpFixed  = []byte{0x08, 0x06, 0, 1, 0x08, 0x00, 6, 4} // EtherType, Ethernet, IPv4, lengths
)

func (f arpFrame) bytes() []byte {
	b := append(append([]byte(nil), f.to...), f.from...)
	b = binary.BigEndian.AppendUint16(append(b, arpFixed...), f.op)
	b = append(append(b, f.senderMAC...), f.sender.AsSlice()...)
	return append(append(b, f.targetMAC...), f.target.AsSlice()...)
}

func parseARP(b []byte) (arpFrame, bool) {
	if len(b) < 42 || !bytes.Equal(b[12:20], arpFixed) {
		return arpFrame{}, false
	}
	b = bytes.Clone(b[:42])
	return arpFrame{
		to: b[0:6], from: b[6:12], op: binary.BigEndian.Uint16(b[20:22]),
		senderMAC: b[22:28], sender: netip.AddrFrom4([4]byte(b[28:32])),
		targetMAC: b[32:38], target: netip.AddrFrom4([4]byte(b[38:42])),
	}, true
}

// gratuitous frames announce: nobody asked (RFC 5227, section 3).
func gratuitous(op uint16, hw net.HardwareAddr, addr netip.Addr) arpFrame {
	f := arpFrame{to: broadcast, from: hw, op: op, senderMAC: hw, sender: addr, targetMAC: make(net.HardwareAddr, 6), target: addr}
	if op == arpReply {
		f.targetMAC = broadcast
	}
	return f
}
