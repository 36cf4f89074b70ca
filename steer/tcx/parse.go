package tcx

import (
	"encoding/binary"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// Fields of struct __sk_buff, include/uapi/linux/bpf.h.
const (
	skbLen       = 0
	skbType      = 4
	skbMark      = 8
	skbProtocol  = 16
	skbVLAN      = 20
	skbInterface = 40
	skbTCIndex   = 44
	skbData      = 76
	skbDataEnd   = 80
	skbGSOSegs   = 164
	skbGSOSize   = 176
)

// What a program returns, besides what bpf_redirect does (enum tcx_action_base).
const (
	goOn = -1 // TCX_NEXT: to other programs, and to netfilter
	drop = 2  // TCX_DROP
)

// Lengths of headers, and where they begin.
const (
	ethernet = 14
	ipv4     = 20
	udp      = 8
	gpe      = 8
	tcp      = 20

	around = ipv4 + udp + gpe // a packet in the tunnel

	inTunnel = 0                 // the tunnel device has no header of its own
	onWire   = ethernet + around // what the tunnel carries
)

const (
	// lease is how long the slow path's word for a flow is good.
	lease = time.Second
	// long flows have as many packets, or a multiple, that tracking sees: shorter ones are
	// not worth the agent's work.
	long    = 8
	endsTCP = 0x01 | 0x02 | 0x04 // FIN, SYN, RST
	// mostSize of a frame for which the outer header's length can be written. TCP's large packets come
	// within some hundred bytes of it.
	mostSize = 0xffff - around + ethernet
)

// Where things are on the programs' stacks.
const (
	onStackKey     = -16
	onStackTTL     = -20 // the four bytes of the header that begin with it
	onStackCounter = -24
	onStackTunnel  = -72 // struct bpf_tunnel_key
	onStackFlow    = -128
	onStackFIB     = -136 // struct bpf_fib_lookup, where there is no flow
	onStackCopy    = -192 // of what an element of a map says
	onStackOuter   = -250 // the headers of a packet in the tunnel; its addresses are aligned
)

// network16 is a number as two bytes of a header are read.
func network16(v uint16) int32 {
	return int32(binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v)))
}

// labelled names the first of some instructions.
func labelled(name string, p asm.Instructions) asm.Instructions {
	p[0] = p[0].WithSymbol(name)
	return p
}

// anyIPv4 goes on with IPv4 that bears no VLAN tag, and leaves the packet in R7 and
// its end in R8.
func anyIPv4() asm.Instructions {
	return asm.Instructions{
		asm.LoadMem(asm.R1, asm.R6, skbProtocol, asm.Word),
		asm.JNE.Imm(asm.R1, network16(unix.ETH_P_IP), "next"),
		asm.LoadMem(asm.R1, asm.R6, skbVLAN, asm.Word),
		asm.JNE.Imm(asm.R1, 0, "next"),
		asm.LoadMem(asm.R7, asm.R6, skbData, asm.Word),
		asm.LoadMem(asm.R8, asm.R6, skbDataEnd, asm.Word),
	}
}

// whole goes on with an IPv4 header at a place, without options and of no fragment.
func whole(at int16) asm.Instructions {
	return asm.Instructions{
		asm.LoadMem(asm.R1, asm.R7, at, asm.Byte),
		asm.JNE.Imm(asm.R1, 0x45, "next"), // version and length
		asm.LoadMem(asm.R1, asm.R7, at+6, asm.Half),
		asm.JSet.Imm(asm.R1, network16(0x3fff), "next"),
	}
}

func within(n int16) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(asm.R1, asm.R7),
		asm.Add.Imm(asm.R1, int32(n)),
		asm.JGT.Reg(asm.R1, asm.R8, "next"),
	}
}

// flowOf goes on at "parsed" with TCP and UDP that may go beside netfilter, the flow's key
// on the stack and the length of its headers in R9. A segment that begins or ends a
// connection goes to "ends", all else to "next".
func flowOf(at int16, reply bool) asm.Instructions {
	src, dst, srcPort, dstPort := int16(onStackKey), int16(onStackKey+4), int16(onStackKey+8), int16(onStackKey+10)
	if reply {
		src, dst, srcPort, dstPort = dst, src, dstPort, srcPort
	}
	p := append(within(at+ipv4+udp), whole(at)...)
	p = append(p,
		asm.LoadMem(asm.R1, asm.R7, at+8, asm.Byte),
		asm.JLE.Imm(asm.R1, 1, "next"), // its time to live is over, and its sender is to be told
	)
	for _, f := range []struct {
		from, to int16
		size     asm.Size
	}{{12, src, asm.Word}, {16, dst, asm.Word}, {ipv4, srcPort, asm.Half}, {ipv4 + 2, dstPort, asm.Half}} {
		p = append(p, asm.LoadMem(asm.R1, asm.R7, at+f.from, f.size), asm.StoreMem(asm.RFP, f.to, asm.R1, f.size))
	}
	p = append(p,
		asm.LoadMem(asm.R1, asm.R7, at+9, asm.Byte),
		asm.StoreMem(asm.RFP, onStackKey+12, asm.R1, asm.Word),
		asm.Mov.Imm(asm.R9, ipv4+udp),
		asm.JEq.Imm(asm.R1, unix.IPPROTO_UDP, "parsed"),
		asm.JNE.Imm(asm.R1, unix.IPPROTO_TCP, "next"),
	)
	p = append(p, within(at+ipv4+tcp)...)
	return append(p,
		asm.LoadMem(asm.R1, asm.R7, at+ipv4+13, asm.Byte),
		asm.JSet.Imm(asm.R1, endsTCP, "ends"),
		asm.LoadMem(asm.R9, asm.R7, at+ipv4+12, asm.Byte),
		asm.RSh.Imm(asm.R9, 4),
		asm.LSh.Imm(asm.R9, 2),
		asm.Add.Imm(asm.R9, ipv4),
	)
}

// onMap calls a function with a map and a key on the stack.
func onMap(call asm.BuiltinFunc, m *ebpf.Map, key int32) asm.Instructions {
	return asm.Instructions{
		asm.LoadMapPtr(asm.R1, m.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, key),
		call.Call(),
	}
}

// known goes on with the flow in R8.
func known(k kernel) asm.Instructions {
	return append(labelled("parsed", onMap(asm.FnMapLookupElem, k.flows, onStackKey)),
		asm.JEq.Imm(asm.R0, 0, "next"),
		asm.Mov.Reg(asm.R8, asm.R0),
	)
}

// way goes on with the flow's ends of the tunnel on the stack, and R8 there.
func way(k kernel) asm.Instructions {
	p := append(taken8(flowRemote), k.seal.made(words(onStackCopy+flowRemote)...)...)
	p = append(p, asm.LoadMem(asm.R2, asm.R8, flowWay, asm.DWord), asm.JNE.Reg(asm.R1, asm.R2, "next"))
	return append(p, onCopy()...)
}

// home goes on with the pod's interface and the frame's header on the stack, and R8 there.
func home(k kernel) asm.Instructions {
	p := append(taken8(flowInterface), taken8(flowInterface+8)...)
	p = append(p, k.seal.made(homeWords()...)...)
	p = append(p,
		asm.LoadMem(asm.R2, asm.R8, flowHome, asm.DWord),
		asm.JNE.Reg(asm.R1, asm.R2, "next"),
		asm.StoreImm(asm.RFP, onStackCopy+flowMACs+12, int64(network16(unix.ETH_P_IP)), asm.Half),
	)
	return append(p, onCopy()...)
}

// homeWords are what a flow's home is sealed with: of all flows of a pod alike.
func homeWords() []asm.Instruction {
	return []asm.Instruction{
		asm.LoadMem(asm.R3, asm.RFP, onStackKey, asm.Word),
		asm.LoadMem(asm.R3, asm.RFP, onStackCopy+flowInterface, asm.DWord),
		asm.LoadMem(asm.R3, asm.RFP, onStackCopy+flowInterface+8, asm.DWord),
	}
}

// fresh goes on if the slow path sent a packet of the flow not long ago.
func fresh() asm.Instructions {
	return asm.Instructions{
		asm.LoadMem(asm.R1, asm.R8, flowOpen, asm.Byte),
		asm.JEq.Imm(asm.R1, 0, "next"),
		asm.FnKtimeGetCoarseNs.Call(),
		asm.LoadMem(asm.R1, asm.R8, flowUntil, asm.DWord),
		asm.JGE.Reg(asm.R0, asm.R1, "next"),
	}
}

// store writes what a register points to into the packet.
func store(at, size int32, from asm.Register, offset int32) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Mov.Imm(asm.R2, at),
		asm.Mov.Reg(asm.R3, from),
		asm.Add.Imm(asm.R3, offset),
		asm.Mov.Imm(asm.R4, size),
		asm.Mov.Imm(asm.R5, 0),
		asm.FnSkbStoreBytes.Call(),
		asm.JNE.Imm(asm.R0, 0, "drop"),
	}
}

// forwarded takes one off the time to live, as a router does (ip_decrease_ttl,
// include/net/ip.h), and clears the mark as the slow path does.
func forwarded(at int16) asm.Instructions {
	p := asm.Instructions{
		asm.LoadMem(asm.R1, asm.R7, at+8, asm.Byte),
		asm.Sub.Imm(asm.R1, 1),
		asm.StoreMem(asm.RFP, onStackTTL, asm.R1, asm.Byte),
		asm.LoadMem(asm.R1, asm.R7, at+9, asm.Byte),
		asm.StoreMem(asm.RFP, onStackTTL+1, asm.R1, asm.Byte),
		asm.LoadMem(asm.R1, asm.R7, at+10, asm.Half),
		asm.Add.Imm(asm.R1, network16(0x0100)),
		asm.Mov.Reg(asm.R2, asm.R1),
		asm.Add.Imm(asm.R2, 1),
		asm.RSh.Imm(asm.R2, 16), // a carry, or all ones
		asm.Add.Reg(asm.R1, asm.R2),
		asm.StoreMem(asm.RFP, onStackTTL+2, asm.R1, asm.Half),
	}
	p = append(p, store(int32(at)+8, 4, asm.RFP, onStackTTL)...)
	return append(p,
		asm.Mov.Imm(asm.R1, 0),
		asm.StoreMem(asm.R6, skbMark, asm.R1, asm.Word),
	)
}

// size of a packet whose IP header is at a place, and of headers in R9, into R1: of a large one, that of
// each that it is made of.
func size(at int32) asm.Instructions {
	return asm.Instructions{
		asm.LoadMem(asm.R1, asm.R6, skbLen, asm.Word),
		asm.Sub.Imm(asm.R1, at),
		asm.LoadMem(asm.R2, asm.R6, skbGSOSize, asm.Word),
		asm.JEq.Imm(asm.R2, 0, "size"),
		asm.Mov.Reg(asm.R1, asm.R9),
		asm.Add.Reg(asm.R1, asm.R2),
		asm.Mov.Reg(asm.R1, asm.R1).WithSymbol("size"),
	}
}

// count a packet whose IP header is at a place.
func count(k kernel, direction, at int32) asm.Instructions {
	return append(asm.Instructions{asm.StoreImm(asm.RFP, onStackCounter, int64(direction), asm.Word)}, counted(k.counts, at)...)
}

// counted adds a packet to the counter whose number is on the stack.
func counted(counts *ebpf.Map, at int32) asm.Instructions {
	return append(onMap(asm.FnMapLookupElem, counts, onStackCounter),
		asm.JEq.Imm(asm.R0, 0, "drop"),
		asm.LoadMem(asm.R1, asm.R6, skbGSOSegs, asm.Word),
		asm.JNE.Imm(asm.R1, 0, "segments"),
		asm.Mov.Imm(asm.R1, 1),
		asm.LoadMem(asm.R2, asm.R0, 0, asm.DWord).WithSymbol("segments"),
		asm.Add.Reg(asm.R2, asm.R1),
		asm.StoreMem(asm.R0, 0, asm.R2, asm.DWord),
		asm.LoadMem(asm.R1, asm.R6, skbLen, asm.Word),
		asm.Sub.Imm(asm.R1, at),
		asm.LoadMem(asm.R2, asm.R0, 8, asm.DWord),
		asm.Add.Reg(asm.R2, asm.R1),
		asm.StoreMem(asm.R0, 8, asm.R2, asm.DWord),
	)
}

func redirect(call asm.BuiltinFunc, to asm.Instruction) asm.Instructions {
	return asm.Instructions{to, asm.Mov.Imm(asm.R2, 0), call.Call(), asm.Return()}
}

// end of each program. One that changes packets has begun to when it gives up, and what
// is half a packet goes nowhere.
func end(k kernel, forgets, changes bool) asm.Instructions {
	var p asm.Instructions
	if changes {
		p = append(p, asm.Mov.Imm(asm.R0, drop).WithSymbol("drop"), asm.Return())
	}
	if forgets {
		p = append(p, labelled("ends", onMap(asm.FnMapDeleteElem, k.flows, onStackKey))...)
	} else {
		p = append(p, asm.Ja.Label("next").WithSymbol("ends"))
	}
	return append(p, asm.Mov.Imm(asm.R0, goOn).WithSymbol("next"), asm.Return())
}
