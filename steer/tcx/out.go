package tcx

import (
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// Flags of bpf_skb_adjust_room, and its mode.
const (
	roomAtMAC  = 1 // BPF_ADJ_ROOM_MAC
	fixedGSO   = 1 << 0
	outerIPv4  = 1 << 1
	outerUDP   = 1 << 4
	keepCheck  = 1 << 5 // BPF_F_ADJ_ROOM_NO_CSUM_RESET
	noCheckOut = 1 << 1 // BPF_F_ZERO_CSUM_TX, as our routes have it
)

// ofOurs in tc_index tells the tunnel's way out what the pod's interface sent there.
const ofOurs = 0x5a11

// Fields of struct bpf_fib_lookup and struct bpf_tunnel_key.
const (
	fibSize      = 64
	fibProtocol  = 1
	fibInterface = 8
	fibSrc       = 16
	fibDst       = 32
	fibOurMAC    = 52
	fibNextMAC   = 58

	tunnelKeySize = 44
	tunnelRemote  = 4
	tunnelLocal   = 28
)

// fromPod is for the host's side of a pod's interface: packets of fresh flows go where
// the slow path sent their last one, into the tunnel.
func fromPod(k kernel, d Device) asm.Instructions {
	p := append(asm.Instructions{asm.Mov.Reg(asm.R6, asm.R1)}, anyIPv4()...)
	p = append(p, flowOf(ethernet, false)...)
	p = append(p, known(k)...)
	p = append(p,
		asm.LoadMem(asm.R1, asm.R8, flowInterface, asm.Word),
		asm.LoadMem(asm.R2, asm.R6, skbInterface, asm.Word),
		asm.JNE.Reg(asm.R1, asm.R2, "elsewhere"),
	)
	p = append(p, fresh()...)
	p = append(p, way(k)...)
	p = append(p, fits(d)...)
	p = append(p, labelled("congestion", forwarded(ethernet))...)
	p = append(p, count(k, outOfPods, ethernet)...)
	if d.Underlay != 0 {
		// A VIP that moves, or is this host's own, is the slow path's or the device's matter.
		p = append(p, byUnderlay(d, "by-device")...)
		p = append(p, wrapped(d)...)
	}
	p = append(p, byDevice(d)...)
	p = append(p, elsewhere(k)...)
	return append(p, end(k, true, true)...)
}

// fits goes on at "congestion" with a packet for which the tunnel has room, and what is to be told
// of congestion in R9.
func fits(d Device) asm.Instructions {
	return append(append(asm.Instructions{
		asm.LoadMem(asm.R1, asm.R6, skbLen, asm.Word),
		asm.JGT.Imm(asm.R1, mostSize, "next"),
	}, size(ethernet)...),
		asm.JGT.Imm(asm.R1, int32(d.MTU), "next"),
		asm.LoadMem(asm.R9, asm.R7, ethernet+1, asm.Byte),
		asm.And.Imm(asm.R9, 3), // congestion is told outside as well, RFC 6040
		asm.JNE.Imm(asm.R9, 3, "congestion"),
		asm.Mov.Imm(asm.R9, 2),
	)
}

// byUnderlay goes on where the kernel's routes and neighbours lead to the flow's end of the tunnel
// by the underlay at this moment, and otherwise elsewhere. The packet is as it was.
func byUnderlay(d Device, otherwise string) asm.Instructions {
	p := cleared(onStackFIB, fibSize)
	p = append(p,
		asm.StoreImm(asm.RFP, onStackFIB, unix.AF_INET, asm.Byte),
		asm.StoreImm(asm.RFP, onStackFIB+fibProtocol, unix.IPPROTO_UDP, asm.Byte),
		asm.StoreImm(asm.RFP, onStackFIB+fibInterface, 1, asm.Word), // lo, where the host's own come from
	)
	for _, a := range []struct{ from, fib, outer int16 }{
		{flowLocal, fibSrc, ethernet + 12}, {flowRemote, fibDst, ethernet + 16},
	} {
		p = append(p,
			asm.LoadMem(asm.R1, asm.R8, a.from, asm.Word),
			asm.HostTo(asm.BE, asm.R1, asm.Word),
			asm.StoreMem(asm.RFP, onStackFIB+a.fib, asm.R1, asm.Word),
			asm.StoreMem(asm.RFP, onStackOuter+a.outer, asm.R1, asm.Word),
		)
	}
	p = append(p,
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, onStackFIB),
		asm.Mov.Imm(asm.R3, fibSize),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnFibLookup.Call(),
		asm.JNE.Imm(asm.R0, 0, otherwise),
		asm.LoadMem(asm.R1, asm.RFP, onStackFIB+fibInterface, asm.Word),
		asm.JNE.Imm(asm.R1, int32(d.Underlay), otherwise),
	)
	return p
}

// wrapped writes the tunnel's headers, with the congestion in R9, and sends by the underlay, past
// the host's netfilter, which has nothing to say to tunnel packets of the host's own.
func wrapped(d Device) asm.Instructions {
	p := append(sourcePort(d),
		asm.FnGetPrandomU32.Call(),
		asm.StoreMem(asm.RFP, onStackOuter+ethernet+4, asm.R0, asm.Half), // the identification
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Mov.Imm(asm.R2, around),
		asm.Mov.Imm(asm.R3, roomAtMAC),
		asm.Mov.Imm(asm.R4, fixedGSO|outerIPv4|outerUDP|keepCheck),
		asm.FnSkbAdjustRoom.Call(),
		asm.JNE.Imm(asm.R0, 0, "drop"),
	)
	p = append(p, outer(d)...)
	p = append(p, store(0, onWire, asm.RFP, onStackOuter)...)
	return append(p, redirect(asm.FnRedirect, asm.Mov.Imm(asm.R1, int32(d.Underlay)))...)
}

// sourcePort is that of the slow path's packets (udp_flow_src_port, include/net/udp.h),
// so that a flow takes one way through a network that spreads them.
func sourcePort(d Device) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.FnGetHashRecalc.Call(),
		asm.Mov.Reg(asm.R1, asm.R0),
		asm.LSh.Imm32(asm.R1, 16),
		asm.Xor.Reg32(asm.R0, asm.R1),
		asm.Mul.Imm(asm.R0, int32(d.LastPort)-int32(d.FirstPort)),
		asm.RSh.Imm(asm.R0, 32),
		asm.Add.Imm(asm.R0, int32(d.FirstPort)),
		asm.HostTo(asm.BE, asm.R0, asm.Half),
		asm.StoreMem(asm.RFP, onStackOuter+ethernet+ipv4, asm.R0, asm.Half),
	}
}

// outer completes the headers on the stack: Ethernet, IPv4, UDP, VXLAN-GPE.
func outer(d Device) asm.Instructions {
	const ip, datagram, tunnel = onStackOuter + ethernet, onStackOuter + ethernet + ipv4, onStackOuter + ethernet + ipv4 + udp
	var p asm.Instructions
	for at := int16(0); at < 6; at += 2 {
		p = append(p,
			asm.LoadMem(asm.R1, asm.RFP, onStackFIB+fibNextMAC+at, asm.Half),
			asm.StoreMem(asm.RFP, onStackOuter+at, asm.R1, asm.Half),
			asm.LoadMem(asm.R1, asm.RFP, onStackFIB+fibOurMAC+at, asm.Half),
			asm.StoreMem(asm.RFP, onStackOuter+6+at, asm.R1, asm.Half),
		)
	}
	half := func(at int16, v uint16) { p = append(p, asm.StoreImm(asm.RFP, at, int64(network16(v)), asm.Half)) }
	length := func(at int16, without int32) {
		p = append(p,
			asm.LoadMem(asm.R1, asm.R6, skbLen, asm.Word),
			asm.Sub.Imm(asm.R1, without),
			asm.HostTo(asm.BE, asm.R1, asm.Half),
			asm.StoreMem(asm.RFP, at, asm.R1, asm.Half),
		)
	}
	half(onStackOuter+12, unix.ETH_P_IP)
	p = append(p, asm.StoreImm(asm.RFP, ip, 0x45, asm.Byte), asm.StoreMem(asm.RFP, ip+1, asm.R9, asm.Byte))
	length(ip+2, ethernet)
	half(ip+6, 0)
	half(ip+8, uint16(d.TTL)<<8|unix.IPPROTO_UDP)
	half(ip+10, 0)
	half(datagram+2, d.Port)
	length(datagram+4, ethernet+ipv4)
	half(datagram+6, 0) // no checksum, as our routes have it
	for i, v := range gpeHeader(d) {
		half(tunnel+int16(2*i), v)
	}
	p = append(p, asm.Mov.Imm(asm.R1, 0))
	for at := int16(0); at < ipv4; at += 2 {
		p = append(p, asm.LoadMem(asm.R2, asm.RFP, ip+at, asm.Half), asm.Add.Reg(asm.R1, asm.R2))
	}
	p = append(p, folded()...)
	return append(p, asm.Xor.Imm(asm.R1, 0xffff), asm.StoreMem(asm.RFP, ip+10, asm.R1, asm.Half))
}

// gpeHeader says that IPv4 follows (draft-ietf-nvo3-vxlan-gpe, section 3.1).
func gpeHeader(d Device) [4]uint16 {
	return [4]uint16{0x0c00, 0x0001, uint16(d.VNI >> 8), uint16(d.VNI << 8)}
}

// byDevice sends through the tunnel device, with the key that a route would give.
func byDevice(d Device) asm.Instructions {
	p := labelled("by-device", cleared(onStackTunnel, tunnelKeySize-4))
	p = append(p,
		asm.StoreMem(asm.RFP, onStackTunnel+tunnelKeySize-4, asm.R1, asm.Word),
		asm.StoreImm(asm.RFP, onStackTunnel, int64(d.VNI), asm.Word),
		asm.LoadMem(asm.R1, asm.R8, flowRemote, asm.Word),
		asm.StoreMem(asm.RFP, onStackTunnel+tunnelRemote, asm.R1, asm.Word),
		asm.LoadMem(asm.R1, asm.R8, flowLocal, asm.Word),
		asm.StoreMem(asm.RFP, onStackTunnel+tunnelLocal, asm.R1, asm.Word),
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, onStackTunnel),
		asm.Mov.Imm(asm.R3, tunnelKeySize),
		asm.Mov.Imm(asm.R4, noCheckOut),
		asm.FnSkbSetTunnelKey.Call(),
		asm.JNE.Imm(asm.R0, 0, "drop"),
		asm.Mov.Imm(asm.R1, ofOurs),
		asm.StoreMem(asm.R6, skbTCIndex, asm.R1, asm.Word),
	)
	return append(p, redirect(asm.FnRedirect, asm.Mov.Imm(asm.R1, int32(d.Index)))...)
}

// elsewhere takes a flow that was not seen here yet, or that another pod had at another
// interface. The agent says whose the address is, and what the slow path said before
// counts no more.
func elsewhere(k kernel) asm.Instructions {
	p := labelled("elsewhere", onMap(asm.FnMapLookupElem, k.homes, onStackKey))
	p = append(p,
		asm.JEq.Imm(asm.R0, 0, "next"),
		asm.LoadMem(asm.R1, asm.R0, 0, asm.Word),
		asm.LoadMem(asm.R2, asm.R6, skbInterface, asm.Word),
		asm.JNE.Reg(asm.R1, asm.R2, "next"),
		asm.Mov.Imm(asm.R1, 0),
		asm.StoreMem(asm.R8, flowUntil, asm.R1, asm.DWord),
	)
	for at := int16(0); at < 6; at += 2 { // each side's address where the other's was
		p = append(p,
			asm.LoadMem(asm.R1, asm.R7, 6+at, asm.Half),
			asm.StoreMem(asm.RFP, onStackCopy+flowMACs+at, asm.R1, asm.Half),
			asm.LoadMem(asm.R1, asm.R7, at, asm.Half),
			asm.StoreMem(asm.RFP, onStackCopy+flowMACs+6+at, asm.R1, asm.Half),
		)
	}
	p = append(p, asm.StoreMem(asm.RFP, onStackCopy+flowInterface, asm.R2, asm.Word))
	p = append(p, k.seal.made(homeWords()...)...)
	p = append(p, asm.StoreMem(asm.R8, flowHome, asm.R1, asm.DWord))
	for at := int16(flowInterface); at < flowHome; at += 8 {
		p = append(p, asm.LoadMem(asm.R1, asm.RFP, onStackCopy+at, asm.DWord), asm.StoreMem(asm.R8, at, asm.R1, asm.DWord))
	}
	return append(p, asm.Ja.Label("next"))
}
