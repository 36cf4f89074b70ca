package tcx

import (
	"encoding/binary"

	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// fromTunnel is for the tunnel's way in: replies of fresh flows go straight to their pod.
// Netfilter admitted the packet that they came in. Of a flow of datagrams tracking sees the
// first reply, or it would call the flow unanswered.
func fromTunnel(k kernel) asm.Instructions {
	p := append(asm.Instructions{asm.Mov.Reg(asm.R6, asm.R1)}, anyIPv4()...)
	p = append(p, flowOf(inTunnel, true)...)
	p = append(p, known(k)...)
	p = append(p, confirmed()...)
	p = append(p,
		asm.LoadMem(asm.R1, asm.R8, flowReplied, asm.Byte),
		asm.JNE.Imm(asm.R1, 0, "replied"),
		asm.Mov.Imm(asm.R1, 1),
		asm.StoreMem(asm.R8, flowReplied, asm.R1, asm.Byte),
		asm.Ja.Label("next"),
	)
	p = append(p, labelled("replied", home(k))...)
	p = append(p, forwarded(inTunnel)...)
	p = append(p, count(k, intoPods, inTunnel)...)
	p = append(p,
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Mov.Imm(asm.R2, ethernet),
		asm.Mov.Imm(asm.R3, 0),
		asm.FnSkbChangeHead.Call(),
		asm.JNE.Imm(asm.R0, 0, "drop"),
	)
	p = append(p, toPod()...)
	return append(p, end(k, true, true)...)
}

// fromWire is for the underlay's way in: it opens tunnel packets that nodes sent to this
// one, as the slow path's rules admit them. A large packet, which the network card or the
// kernel put together, keeps its marks of a tunnel when it is opened here, and is
// left to the tunnel device.
func fromWire(k kernel, d Device) asm.Instructions {
	const ip = ethernet
	p := inTunnelPacket(d)
	local := d.Local.As4()
	p = append(p,
		asm.LoadMem(asm.R1, asm.R7, ip+16, asm.Word),
		asm.JNE.Imm32(asm.R1, int32(binary.NativeEndian.Uint32(local[:])), "next"),
		asm.LoadMem(asm.R1, asm.R7, ip+12, asm.Word),
		asm.StoreMem(asm.RFP, onStackCounter, asm.R1, asm.Word),
	)
	p = append(p, onMap(asm.FnMapLookupElem, k.peers, onStackCounter)...)
	p = append(p, asm.JEq.Imm(asm.R0, 0, "next"))
	p = append(p, flowOf(onWire, true)...)
	p = append(p, known(k)...)
	p = append(p, confirmed()...)
	p = append(p,
		asm.LoadMem(asm.R1, asm.R8, flowReplied, asm.Byte),
		asm.JEq.Imm(asm.R1, 0, "next"),
	)
	p = append(p, home(k)...)
	p = append(p, forwarded(onWire)...)
	p = append(p, count(k, intoPods, onWire)...)
	p = append(p, unwrapped()...)
	p = append(p, toPod()...)
	return append(p, end(k, true, true)...)
}

// inTunnelPacket goes on with what the tunnel carries, in one packet of its own.
func inTunnelPacket(d Device) asm.Instructions {
	const ip, datagram, tunnel = ethernet, ethernet + ipv4, ethernet + ipv4 + udp
	p := append(asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMem(asm.R1, asm.R6, skbType, asm.Word),
		asm.JNE.Imm(asm.R1, unix.PACKET_HOST, "next"),
		asm.LoadMem(asm.R1, asm.R6, skbGSOSize, asm.Word),
		asm.JNE.Imm(asm.R1, 0, "next"),
	}, anyIPv4()...)
	p = append(p, within(onWire)...)
	is := func(at int16, v uint16) {
		p = append(p, asm.LoadMem(asm.R1, asm.R7, at, asm.Half), asm.JNE.Imm(asm.R1, network16(v), "next"))
	}
	is(datagram+2, d.Port)
	p = append(p, whole(ip)...)
	p = append(p,
		asm.LoadMem(asm.R1, asm.R7, ip+9, asm.Byte),
		asm.JNE.Imm(asm.R1, unix.IPPROTO_UDP, "next"),
		asm.LoadMem(asm.R1, asm.R7, ip+1, asm.Byte),
		asm.And.Imm(asm.R1, 3),
		asm.JEq.Imm(asm.R1, 3, "next"), // congestion on the way is to be told inside
	)
	is(datagram+6, 0) // a checksum is to be looked at
	for i, v := range gpeHeader(d) {
		is(tunnel+int16(2*i), v)
	}
	return p
}

// unwrapped takes the tunnel's headers off, but for that of Ethernet.
func unwrapped() asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Mov.Imm(asm.R2, -around),
		asm.Mov.Imm(asm.R3, roomAtMAC),
		asm.Mov.Imm(asm.R4, fixedGSO),
		asm.FnSkbAdjustRoom.Call(),
		asm.JNE.Imm(asm.R0, 0, "drop"),
	}
}

// confirmed goes on with a fresh flow that was seen at its pod's interface as it is: one
// that is translated on the node never is.
func confirmed() asm.Instructions {
	return append(asm.Instructions{
		asm.LoadMem(asm.R1, asm.R8, flowInterface, asm.Word),
		asm.JEq.Imm(asm.R1, 0, "next"),
	}, fresh()...)
}

// toPod gives the packet its header and hands it to the pod's end of its interface.
func toPod() asm.Instructions {
	return append(store(0, ethernet, asm.R8, flowMACs),
		redirect(asm.FnRedirectPeer, asm.LoadMem(asm.R1, asm.R8, flowInterface, asm.Word))...)
}
