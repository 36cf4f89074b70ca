package conntrack

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Interest says which events of its zone a listener is for. The kernel drops others
// where they are made: they wake nobody, and are not read.
type Interest uint8

const (
	// Everything is all of them.
	Everything Interest = iota
	// Changes are those that a Scope makes a Change of. The birth of an entry is
	// none, for nothing is told of a connection that was not answered.
	Changes
)

// groups are NFNLGRP_CONNTRACK_NEW, _UPDATE and _DESTROY, one bit each
// (include/uapi/linux/netfilter/nfnetlink.h). An event of which no socket hears is not
// even made.
func (i Interest) groups() uint32 {
	if i == Changes {
		return 1<<1 | 1<<2
	}
	return 1<<0 | 1<<1 | 1<<2
}

// Extensions of the kernel's filter language: A becomes where the attribute X begins, of
// those from A on, or of those in the one at A; 0: there is none (include/uapi/linux/filter.h,
// SKF_AD_NLATTR and SKF_AD_NLATTR_NEST).
const (
	extAttribute = 12
	extNested    = 16
)

// filter is what the kernel asks about each event.
func filter(zone uint16, what Interest) []bpf.Instruction {
	const attributes = unix.NLMSG_HDRLEN + nfgenmsgLen
	pass, refuse := bpf.RetConstant{Val: math.MaxUint32}, bpf.RetConstant{}
	isNot := func(value uint32, skip uint8) bpf.Instruction {
		return bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: value, SkipTrue: skip}
	}
	find := func(kind uint32, by bpf.Extension) []bpf.Instruction {
		return []bpf.Instruction{bpf.LoadConstant{Dst: bpf.RegX, Val: kind}, bpf.LoadExtension{Num: by}}
	}
	start := bpf.LoadConstant{Dst: bpf.RegA, Val: attributes}

	program := slices.Concat([]bpf.Instruction{start}, find(ctaZone, extAttribute), []bpf.Instruction{
		isNot(0, 1), bpf.Jump{Skip: 2}, // zone 0 is told by no attribute, and A is 0
		bpf.TAX{}, bpf.LoadIndirect{Off: attrHeader, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(zone), SkipTrue: 1}, refuse,
	})
	if what == Everything {
		return append(program, pass)
	}
	deleted := uint32(binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, deleteEntry))) // as the filter reads it
	isDeleted := bpf.LoadAbsolute{Off: 4, Size: 2}
	// What this process asked for is told of if it is an end.
	program = slices.Concat(program, ifOwn(3), []bpf.Instruction{
		isDeleted, bpf.JumpIf{Cond: bpf.JumpEqual, Val: deleted, SkipTrue: 1}, refuse,
	})
	// What has no state is not of TCP, or came by another way than from state to state.
	program = slices.Concat(program, []bpf.Instruction{start},
		find(ctaProtoInfo, extAttribute), []bpf.Instruction{isNot(0, 1), pass},
		find(ctaProtoInfoTCP, extNested), []bpf.Instruction{isNot(0, 1), pass},
		find(ctaTCPState, extNested), []bpf.Instruction{isNot(0, 1), pass})
	return append(program,
		bpf.TAX{}, bpf.LoadIndirect{Off: attrHeader, Size: 1}, bpf.TAX{},
		isDeleted, isNot(deleted, 4),
		// The rest is as Scope.Change has it: the end of what was told of and has not closed,
		bpf.TXA{},
		bpf.JumpIf{Cond: bpf.JumpLessThan, Val: uint32(TCPEstablished), SkipTrue: 1},
		bpf.JumpIf{Cond: bpf.JumpLessOrEqual, Val: uint32(tcpLastAck), SkipTrue: 6},
		refuse,
		// and of what lives its opening, the first FIN and the close.
		bpf.TXA{},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(TCPEstablished), SkipTrue: 3},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(tcpFinWait), SkipTrue: 2},
		bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: uint32(tcpTimeWait), SkipTrue: 1},
		refuse,
		pass,
	)
}

// attach makes the kernel ask the filter about each datagram for the socket.
func attach(fd int, program []bpf.Instruction) error {
	raw, err := bpf.Assemble(program)
	if err != nil {
		return fmt.Errorf("assemble the filter of connection-tracking events: %w", err)
	}
	kernel := make([]unix.SockFilter, len(raw))
	for i, in := range raw {
		kernel[i] = unix.SockFilter{Code: in.Op, Jt: in.Jt, Jf: in.Jf, K: in.K}
	}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(kernel)), Filter: &kernel[0]}); err != nil {
		return fmt.Errorf("attach the filter of connection-tracking events: %w", err)
	}
	return nil
}
