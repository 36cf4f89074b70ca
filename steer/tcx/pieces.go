package tcx

import (
	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// bySlowPath begins a program on a way out, and goes on with IPv4 packets that came there by
// themselves, not by a program of ours.
func bySlowPath() asm.Instructions {
	return append(asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMem(asm.R1, asm.R6, skbTCIndex, asm.Word),
		asm.JNE.Imm(asm.R1, ofOurs, "slow"),
		asm.Mov.Imm(asm.R1, 0),
		asm.StoreMem(asm.R6, skbTCIndex, asm.R1, asm.Word),
		asm.Ja.Label("next"),
	}, labelled("slow", anyIPv4())...)
}

// cleared makes bytes of the stack 0, eight at a time, and R1.
func cleared(from, size int16) asm.Instructions {
	p := asm.Instructions{asm.Mov.Imm(asm.R1, 0)}
	for at := int16(0); at < size; at += 8 {
		p = append(p, asm.StoreMem(asm.RFP, from+at, asm.R1, asm.DWord))
	}
	return p
}

// folded makes the sum in R1 one of 16 bits.
func folded() (p asm.Instructions) {
	for range 2 {
		p = append(p, asm.Mov.Reg(asm.R2, asm.R1), asm.RSh.Imm(asm.R2, 16), asm.And.Imm(asm.R1, 0xffff), asm.Add.Reg(asm.R1, asm.R2))
	}
	return p
}

// put the value on the stack under the key there.
func put(m *ebpf.Map) asm.Instructions {
	return asm.Instructions{
		asm.LoadMapPtr(asm.R1, m.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, onStackKey),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, onStackFlow),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnMapUpdateElem.Call(),
		asm.Ja.Label("next"),
	}
}

// told gives bytes of the stack to whoever reads the ring.
func told(ring *ebpf.Map, from, size int32) asm.Instructions {
	return asm.Instructions{
		asm.LoadMapPtr(asm.R1, ring.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, from),
		asm.Mov.Imm(asm.R3, size),
		asm.Mov.Imm(asm.R4, 0),
		asm.FnRingbufOutput.Call(),
		asm.Ja.Label("next"),
	}
}
