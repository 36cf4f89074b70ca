package tcx

import (
	"encoding/binary"
	"net/netip"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// Where things are on the stacks of a gateway's programs, beside those of the agent's.
const (
	onStackNow    = -264
	onStackIP     = -280 // the header from its time to live on
	onStackOther  = -296 // the other key of a connection
	onStackFrame  = -312 // the Ethernet header
	onStackSource = -320 // the port and
	onStackOld    = -328 // the address before they are changed
)

// Flags of bpf_l4_csum_replace.
const (
	ofPseudoHeader = 1 << 4
	mayBeNone      = 1 << 5 // BPF_F_MARK_MANGLED_0: UDP's may
)

// Fields of struct bpf_fib_lookup that only a gateway sets.
const (
	fibSrcPort = 2
	fibDstPort = 4
	fibSize16  = 6
	fibTOS     = 12
)

// outFromWire is for the way in of tunnel packets to a VIP: it opens those of fresh flows and sends
// what is in them on to the partner, as the VIP.
func outFromWire(k pairs, g Front) asm.Instructions {
	p := inTunnelPacket(g.Device)
	p = append(p, flowOf(onWire, false)...)
	p = append(p, copied(k, k.out)...)
	for _, end := range []struct{ in, out int16 }{{ethernet + 12, outNode}, {ethernet + 16, outInside}} {
		p = append(p,
			asm.LoadMem(asm.R1, asm.R7, end.in, asm.Word),
			asm.LoadMem(asm.R2, asm.R8, end.out, asm.Word),
			asm.JNE.Reg(asm.R1, asm.R2, "next"),
		)
	}
	p = append(p, lasting(k)...)
	p = append(p, toPartner(g.Device, onWire)...)
	p = append(p, translated(onWire, 12)...)
	p = append(p, countedAt(k, onWire)...)
	p = append(p, unwrapped()...)
	p = append(p, sent()...)
	return append(p, finish(k.out, k.home)...)
}

// outFromTunnel is for the tunnel device's way in, which opened what the wire's program left to it.
func outFromTunnel(k pairs, g Front) asm.Instructions {
	p := append(asm.Instructions{asm.Mov.Reg(asm.R6, asm.R1)}, anyIPv4()...)
	p = append(p, flowOf(inTunnel, false)...)
	p = append(p, copied(k, k.out)...)
	p = append(p, tunnelKey(g.Device)...)
	for _, end := range []struct{ in, out int16 }{{tunnelRemote, outNode}, {tunnelLocal, outInside}} {
		p = append(p,
			asm.LoadMem(asm.R1, asm.RFP, onStackTunnel+end.in, asm.Word),
			asm.HostTo(asm.BE, asm.R1, asm.Word),
			asm.LoadMem(asm.R2, asm.R8, end.out, asm.Word),
			asm.JNE.Reg(asm.R1, asm.R2, "next"),
		)
	}
	p = append(p, lasting(k)...)
	p = append(p, toPartner(g.Device, inTunnel)...)
	p = append(p, translated(inTunnel, 12)...)
	p = append(p, countedAt(k, inTunnel)...)
	p = append(p,
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Mov.Imm(asm.R2, ethernet),
		asm.Mov.Imm(asm.R3, 0),
		asm.FnSkbChangeHead.Call(),
		asm.JNE.Imm(asm.R0, 0, "drop"),
	)
	p = append(p, sent()...)
	return append(p, finish(k.out, k.home)...)
}

// homeFromWire is for the way in of what partners send to a VIP: replies of fresh flows go into the
// tunnel, to their pod's node.
func homeFromWire(k pairs, g Front) asm.Instructions {
	p := append(asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMem(asm.R1, asm.R6, skbType, asm.Word),
		asm.JNE.Imm(asm.R1, unix.PACKET_HOST, "next"),
	}, anyIPv4()...)
	p = append(p, within(ethernet+ipv4+udp)...)
	p = append(p, ofVIP(g.VIPs, ethernet+16)...)
	p = append(p, flowOf(ethernet, true)...)
	p = append(p, copied(k, k.home)...)
	p = append(p, lasting(k)...)
	p = append(p, fits(g.Device)...)
	p = append(p, labelled("congestion", byUnderlay(g.Device, "next"))...)
	p = append(p, translated(ethernet, 16)...)
	p = append(p, countedAt(k, ethernet)...)
	p = append(p, wrapped(g.Device)...)
	return append(p, finish(k.home, k.out)...)
}

// tunnelKey goes on with a packet of our tunnel, whose ends are on the stack, in the host's order.
func tunnelKey(d Device) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, onStackTunnel),
		asm.Mov.Imm(asm.R3, tunnelKeySize),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnSkbGetTunnelKey.Call(),
		asm.JNE.Imm(asm.R0, 0, "next"),
		asm.LoadMem(asm.R1, asm.RFP, onStackTunnel, asm.Word),
		asm.JNE.Imm(asm.R1, int32(d.VNI), "next"),
	}
}

// ofVIP goes on with packets that have a VIP at a place.
func ofVIP(vips []Address, at int16) asm.Instructions {
	p := asm.Instructions{asm.LoadMem(asm.R1, asm.R7, at, asm.Word)}
	for _, v := range vips {
		p = append(p, asm.JEq.Imm32(asm.R1, native(v.VIP), "a-vip"))
	}
	return append(p, asm.Ja.Label("next"), asm.Mov.Reg(asm.R1, asm.R1).WithSymbol("a-vip"))
}

func native(a netip.Addr) int32 {
	b := a.As4()
	return int32(binary.NativeEndian.Uint32(b[:]))
}

// copied goes on with what one half of a connection says on the stack, and R8 there.
func copied(k pairs, m *ebpf.Map) asm.Instructions {
	p := paired(m)
	for at := int16(0); at < pairSize; at += 8 { // first until when: a lease is given to what is whole
		p = append(p, taken8(at)...)
	}
	p = append(p, k.seal.made(words(onStackCopy+outNode, onStackCopy+pairAddr, onStackCopy+pairFence)...)...)
	p = append(p, asm.LoadMem(asm.R2, asm.RFP, onStackCopy+pairSeal, asm.DWord), asm.JNE.Reg(asm.R1, asm.R2, "next"))
	return append(p, onCopy()...)
}

// paired goes on with one half of a connection in R8.
func paired(m *ebpf.Map) asm.Instructions {
	return append(labelled("parsed", onMap(asm.FnMapLookupElem, m, onStackKey)),
		asm.JEq.Imm(asm.R0, 0, "next"),
		asm.Mov.Reg(asm.R8, asm.R0),
	)
}

// lasting goes on while the slow path's word for this direction of a connection is good, and the fence
// open for its VIP. Past that instant, whatever became of the process that moves it, packets
// meet the fence's tables.
func lasting(k pairs) asm.Instructions {
	p := asm.Instructions{
		asm.LoadMem(asm.R1, asm.R8, pairOpen, asm.Word),
		asm.JEq.Imm(asm.R1, 0, "next"),
		asm.FnKtimeGetBootNs.Call(),
		asm.StoreMem(asm.RFP, onStackNow, asm.R0, asm.DWord),
		asm.LoadMem(asm.R1, asm.R8, pairUntil, asm.DWord),
		asm.JGE.Reg(asm.R0, asm.R1, "next"),
		asm.LoadMem(asm.R1, asm.R8, pairFence, asm.Word),
		asm.StoreMem(asm.RFP, onStackCounter, asm.R1, asm.Word),
	}
	p = append(p, onMap(asm.FnMapLookupElem, k.fence, onStackCounter)...)
	return append(p,
		asm.JEq.Imm(asm.R0, 0, "next"),
		asm.LoadMem(asm.R1, asm.R0, 0, asm.DWord),
		asm.LoadMem(asm.R2, asm.RFP, onStackNow, asm.DWord),
		asm.JGE.Reg(asm.R2, asm.R1, "next"),
	)
}

// toPartner goes on where the kernel's routes and neighbours lead to the partner at this moment by the
// interface that the slow path took, and the packet is not too large for that way.
func toPartner(d Device, at int16) asm.Instructions {
	p := cleared(onStackFIB, fibSize)
	p = append(p, size(int32(at))...)
	p = append(p,
		asm.JGT.Imm(asm.R1, mostSize, "next"),
		asm.StoreMem(asm.RFP, onStackFIB+fibSize16, asm.R1, asm.Half),
		asm.StoreImm(asm.RFP, onStackFIB, unix.AF_INET, asm.Byte),
		asm.StoreImm(asm.RFP, onStackFIB+fibInterface, int64(d.Index), asm.Word),
	)
	for _, f := range []struct {
		from, to int16
		size     asm.Size
	}{
		{9, fibProtocol, asm.Byte}, {1, fibTOS, asm.Byte}, {12, fibSrc, asm.Word}, {16, fibDst, asm.Word},
		{ipv4, fibSrcPort, asm.Half}, {ipv4 + 2, fibDstPort, asm.Half},
	} {
		p = append(p, asm.LoadMem(asm.R1, asm.R7, at+f.from, f.size), asm.StoreMem(asm.RFP, onStackFIB+f.to, asm.R1, f.size))
	}
	return append(p,
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, onStackFIB),
		asm.Mov.Imm(asm.R3, fibSize),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnFibLookup.Call(),
		asm.JNE.Imm(asm.R0, 0, "next"),
		asm.LoadMem(asm.R1, asm.RFP, onStackFIB+fibInterface, asm.Word),
		asm.LoadMem(asm.R2, asm.R8, outInterface, asm.Word),
		asm.JNE.Reg(asm.R1, asm.R2, "next"),
	)
}

// translated gives a packet whose IP header is at a place another address and port, the source's (at
// byte 12 of the header) or the destination's (at 16), and takes one off its time to live. The sums of TCP
// and UDP may be the network card's to make yet, which the kernel's functions know.
func translated(at, addr int16) asm.Instructions {
	const ttl = 8
	port := at + ipv4 + (addr-12)/2
	p := asm.Instructions{
		asm.LoadMem(asm.R1, asm.R7, at+addr, asm.Word),
		asm.StoreMem(asm.RFP, onStackOld, asm.R1, asm.Word),
		asm.LoadMem(asm.R1, asm.R7, port, asm.Half),
		asm.StoreMem(asm.RFP, onStackSource, asm.R1, asm.Half),
		asm.LoadMem(asm.R1, asm.R7, at+ttl, asm.Byte),
		asm.Sub.Imm(asm.R1, 1),
		asm.StoreMem(asm.RFP, onStackIP, asm.R1, asm.Byte),
		asm.LoadMem(asm.R1, asm.R7, at+9, asm.Byte),
		asm.StoreMem(asm.RFP, onStackIP+1, asm.R1, asm.Byte),
		asm.LoadMem(asm.R1, asm.R7, at+10, asm.Half),
		asm.Xor.Imm(asm.R1, 0xffff),
		asm.LoadMem(asm.R2, asm.R8, pairSum, asm.Half),
		asm.Add.Reg(asm.R1, asm.R2),
		asm.Add.Imm(asm.R1, network16(0xfeff)), // one less of the time to live
	}
	p = append(p, folded()...)
	p = append(p, asm.Xor.Imm(asm.R1, 0xffff), asm.StoreMem(asm.RFP, onStackIP+2, asm.R1, asm.Half))
	for _, a := range []int16{12, 16} {
		from := asm.LoadMem(asm.R1, asm.R7, at+a, asm.Word)
		if a == addr {
			from = asm.LoadMem(asm.R1, asm.R8, pairAddr, asm.Word)
		}
		p = append(p, from, asm.StoreMem(asm.RFP, onStackIP+a-ttl, asm.R1, asm.Word))
	}
	p = append(p,
		asm.LoadMem(asm.R1, asm.RFP, onStackKey+12, asm.Word),
		asm.JEq.Imm(asm.R1, unix.IPPROTO_TCP, "sum-of-tcp"),
	)
	p = append(p, summed(int32(at)+ipv4+6, mayBeNone, "summed")...)
	p = append(p, labelled("sum-of-tcp", summed(int32(at)+ipv4+16, 0, "summed"))...)
	p = append(p, labelled("summed", store(int32(at)+ttl, 12, asm.RFP, onStackIP))...)
	p = append(p, store(int32(port), 2, asm.R8, pairPort)...)
	return append(p,
		asm.Mov.Imm(asm.R1, 0),
		asm.StoreMem(asm.R6, skbMark, asm.R1, asm.Word),
	)
}

// summed brings the sum at a place after a change of address and port.
func summed(at, flags int32, then string) asm.Instructions {
	replace := func(old asm.Instruction, to int16, size asm.Size, flags int32) asm.Instructions {
		return asm.Instructions{
			old,
			asm.LoadMem(asm.R4, asm.R8, to, size),
			asm.Mov.Reg(asm.R1, asm.R6),
			asm.Mov.Imm(asm.R2, at),
			asm.Mov.Imm(asm.R5, flags|int32(size.Sizeof())),
			asm.FnL4CsumReplace.Call(),
			asm.JNE.Imm(asm.R0, 0, "drop"),
		}
	}
	p := replace(asm.LoadMem(asm.R3, asm.RFP, onStackOld, asm.Word), pairAddr, asm.Word, flags|ofPseudoHeader)
	p = append(p,
		asm.LoadMem(asm.R3, asm.RFP, onStackSource, asm.Half),
		asm.LoadMem(asm.R4, asm.R8, pairPort, asm.Half),
		asm.JEq.Reg(asm.R3, asm.R4, then),
	)
	p = append(p, replace(asm.LoadMem(asm.R3, asm.RFP, onStackSource, asm.Half), pairPort, asm.Half, flags)...)
	return append(p, asm.Ja.Label(then))
}

// countedAt counts for the route.
func countedAt(k pairs, at int32) asm.Instructions {
	return append(asm.Instructions{
		asm.LoadMem(asm.R1, asm.R8, pairCounter, asm.Word),
		asm.StoreMem(asm.RFP, onStackCounter, asm.R1, asm.Word),
	}, counted(k.counts, at)...)
}

// sent gives a packet its Ethernet header and sends it by the interface of its flow, where what limits
// traffic still sees it.
func sent() asm.Instructions {
	var p asm.Instructions
	for at := int16(0); at < 6; at += 2 {
		p = append(p,
			asm.LoadMem(asm.R1, asm.RFP, onStackFIB+fibNextMAC+at, asm.Half),
			asm.StoreMem(asm.RFP, onStackFrame+at, asm.R1, asm.Half),
			asm.LoadMem(asm.R1, asm.RFP, onStackFIB+fibOurMAC+at, asm.Half),
			asm.StoreMem(asm.RFP, onStackFrame+6+at, asm.R1, asm.Half),
		)
	}
	p = append(p, asm.StoreImm(asm.RFP, onStackFrame+12, int64(network16(unix.ETH_P_IP)), asm.Half))
	p = append(p, store(0, ethernet, asm.RFP, onStackFrame)...)
	p = append(p,
		asm.Mov.Imm(asm.R1, ofOurs),
		asm.StoreMem(asm.R6, skbTCIndex, asm.R1, asm.Word),
	)
	return append(p, redirect(asm.FnRedirect, asm.LoadMem(asm.R1, asm.R8, outInterface, asm.Word))...)
}

// other makes the connection's key in the other map, of a half in a register.
func other(half asm.Register) asm.Instructions {
	return asm.Instructions{
		asm.LoadMem(asm.R1, half, pairAddr, asm.Word),
		asm.StoreMem(asm.RFP, onStackOther, asm.R1, asm.Word),
		asm.LoadMem(asm.R1, asm.RFP, onStackKey+4, asm.Word),
		asm.StoreMem(asm.RFP, onStackOther+4, asm.R1, asm.Word),
		asm.LoadMem(asm.R1, half, pairPort, asm.Half),
		asm.StoreMem(asm.RFP, onStackOther+8, asm.R1, asm.Half),
		asm.LoadMem(asm.R1, asm.RFP, onStackKey+10, asm.Half),
		asm.StoreMem(asm.RFP, onStackOther+10, asm.R1, asm.Half),
		asm.LoadMem(asm.R1, asm.RFP, onStackKey+12, asm.Word),
		asm.StoreMem(asm.RFP, onStackOther+12, asm.R1, asm.Word),
	}
}

// finish ends a program that changes packets, and forgets both halves of a connection that
// a segment begins or ends.
func finish(here, there *ebpf.Map) asm.Instructions {
	p := asm.Instructions{asm.Mov.Imm(asm.R0, drop).WithSymbol("drop"), asm.Return()}
	p = append(p, labelled("ends", onMap(asm.FnMapLookupElem, here, onStackKey))...)
	p = append(p, asm.JEq.Imm(asm.R0, 0, "next"))
	p = append(p, forgotten(asm.R0, here, there)...)
	return append(p, asm.Mov.Imm(asm.R0, goOn).WithSymbol("next"), asm.Return())
}

// forgotten deletes both halves of a connection, one of which is in a register.
func forgotten(half asm.Register, here, there *ebpf.Map) asm.Instructions {
	p := other(half)
	p = append(p, onMap(asm.FnMapDeleteElem, there, onStackOther)...)
	return append(p, onMap(asm.FnMapDeleteElem, here, onStackKey)...)
}
