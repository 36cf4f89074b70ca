package sockops

import (
	"fmt"
	"math/bits"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// Fields of struct bpf_sock_ops, include/uapi/linux/bpf.h. The IPv6 ones have IPv4
// addresses too, mapped, whichever family the socket is of (sk_daddr_set and
// sk_rcv_saddr_set, include/net/inet_sock.h).
const (
	fieldOp         = 0
	fieldReply      = 4
	fieldRemote     = 32
	fieldLocal      = 48
	fieldRemotePort = 64
	fieldState      = 88
	fieldPacketsOut = 128
)

const (
	opTimeoutInit = 1           // BPF_SOCK_OPS_TIMEOUT_INIT
	synSent       = 2           // TCP_SYN_SENT
	mostRetries   = 127         // MAX_TCP_SYNCNT, include/net/tcp.h
	ordinary      = time.Second // TCP_TIMEOUT_INIT, likewise; RFC 6298 section 2
)

// Where things are on the program's stack.
const (
	onStackSource      = -16
	onStackDestination = -40 // a key of the destinations, of which the address is the end
	onStackAddress     = -32
	onStackRetries     = -44
	onStackCounter     = -48
)

// program answers how long a connection waits before it sends its SYN again. It is
// asked when the SYN is about to be sent, so that the addresses are known, and says
// nothing about connections that are not in the maps. It is asked again at each retry,
// when a packet is out (retransmits_timed_out, net/ipv4/tcp_timer.c), and by servers,
// about their SYN-ACKs, in another state. A connection that tries sooner must not give up
// sooner: where the kernel lets no program raise the retries, it is left as it is.
func program(k kernel, first time.Duration) (asm.Instructions, error) {
	ticks, err := jiffies(first)
	if err != nil {
		return nil, err
	}
	p := asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMem(asm.R1, asm.R6, fieldOp, asm.Word),
		asm.JNE.Imm(asm.R1, opTimeoutInit, "out"),
		asm.LoadMem(asm.R1, asm.R6, fieldState, asm.Word),
		asm.JNE.Imm(asm.R1, synSent, "out"),
		asm.LoadMem(asm.R1, asm.R6, fieldPacketsOut, asm.Word),
		asm.JNE.Imm(asm.R1, 0, "out"),
	}
	for word := int16(0); word < 16; word += 4 {
		p = append(p,
			asm.LoadMem(asm.R1, asm.R6, fieldLocal+word, asm.Word),
			asm.StoreMem(asm.RFP, onStackSource+word, asm.R1, asm.Word),
			asm.LoadMem(asm.R1, asm.R6, fieldRemote+word, asm.Word),
			asm.StoreMem(asm.RFP, onStackAddress+word, asm.R1, asm.Word),
		)
	}
	p = append(p, lookUp(k.classes, onStackSource)...)
	p = append(p,
		asm.LoadMem(asm.R1, asm.R0, 0, asm.Word),
		asm.StoreMem(asm.RFP, onStackDestination+4, asm.R1, asm.Word),
		asm.StoreImm(asm.RFP, onStackDestination, keyBits, asm.Word),
	)
	p = append(p, lookUp(k.destinations, onStackDestination)...)
	p = append(p,
		asm.LoadMem(asm.R2, asm.R6, fieldRemotePort, asm.Word),
		asm.HostTo(asm.BE, asm.R2, asm.Word),
	)
	for i := range portRanges {
		p = append(p,
			asm.LoadMem(asm.R1, asm.R0, int16(4*i), asm.Half).WithSymbol(rangeLabel(i)),
			asm.JLT.Reg(asm.R2, asm.R1, rangeLabel(i+1)),
			asm.LoadMem(asm.R1, asm.R0, int16(4*i+2), asm.Half),
			asm.JLE.Reg(asm.R2, asm.R1, "taken"),
		)
	}
	p = append(p,
		asm.Ja.Label("out").WithSymbol(rangeLabel(portRanges)),
		asm.StoreImm(asm.RFP, onStackCounter, refused, asm.Word).WithSymbol("taken"),
		asm.StoreImm(asm.RFP, onStackRetries, 0, asm.Word),
	)
	p = append(p, retriesOption(asm.FnGetsockopt)...)
	p = append(p,
		asm.LoadMem(asm.R1, asm.RFP, onStackRetries, asm.Word),
		asm.Add.Imm(asm.R1, moreRetries(first)),
		asm.JLE.Imm(asm.R1, mostRetries, "within"),
		asm.Mov.Imm(asm.R1, mostRetries),
		asm.StoreMem(asm.RFP, onStackRetries, asm.R1, asm.Word).WithSymbol("within"),
	)
	p = append(p, retriesOption(asm.FnSetsockopt)...)
	return append(p,
		asm.StoreImm(asm.RFP, onStackCounter, sooner, asm.Word),
		asm.Mov.Imm(asm.R1, ticks),
		asm.StoreMem(asm.R6, fieldReply, asm.R1, asm.Word),
		asm.LoadMapPtr(asm.R1, k.counters.FD()).WithSymbol("count"),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, onStackCounter),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "out"),
		asm.Mov.Imm(asm.R1, 1),
		asm.AddAtomic.Mem(asm.R0, asm.R1, asm.DWord, 0),
		asm.Mov.Imm(asm.R0, 1).WithSymbol("out"), // anything else is a refusal
		asm.Return(),
	), nil
}

func rangeLabel(i int) string { return fmt.Sprintf("range-%d", i) }

// lookUp leaves in R0 what a map has for a key on the stack, or ends the program.
func lookUp(m *ebpf.Map, key int32) asm.Instructions {
	return asm.Instructions{
		asm.LoadMapPtr(asm.R1, m.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, key),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "out"),
	}
}

// retriesOption gets or sets TCP_SYNCNT, or counts that it is refused.
func retriesOption(call asm.BuiltinFunc) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Mov.Imm(asm.R2, unix.IPPROTO_TCP),
		asm.Mov.Imm(asm.R3, unix.TCP_SYNCNT),
		asm.Mov.Reg(asm.R4, asm.RFP),
		asm.Add.Imm(asm.R4, onStackRetries),
		asm.Mov.Imm(asm.R5, 4),
		call.Call(),
		asm.JSLT.Imm(asm.R0, 0, "count"),
	}
}

// jiffies is a time in the kernel's ticks, rounded up. The resolution of the coarse
// clock is one tick.
func jiffies(d time.Duration) (int32, error) {
	var tick unix.Timespec
	if err := unix.ClockGetres(unix.CLOCK_MONOTONIC_COARSE, &tick); err != nil {
		return 0, fmt.Errorf("ask for the length of the kernel's tick: %w", err)
	}
	return int32((d.Nanoseconds() + tick.Nano() - 1) / tick.Nano()), nil
}

// moreRetries make up for waits that begin shorter and double as before, so that a
// connection goes on trying for about as long as it would have.
func moreRetries(first time.Duration) int32 {
	return int32(bits.Len64(uint64((ordinary - 1) / first)))
}
