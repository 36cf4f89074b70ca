package tcx

import (
	"crypto/rand"
	"encoding/binary"

	"github.com/cilium/ebpf/asm"
)

// seal binds what a map's element says to the key that it was written for. The kernel gives an element
// of a map to another key without waiting for who reads it (prealloc_lru_pop and
// htab_lru_map_update_elem, kernel/bpf/hashtab.c): a program that found its own connection may read
// another's, or half of each, for which the seal is not right. It is a polynomial of what is
// sealed at a random place, so that no two differ in ways that cancel each other out.
type seal uint64

func newSeal() seal {
	var b [8]byte
	_, _ = rand.Read(b[:])                            // which never fails
	return seal(binary.NativeEndian.Uint64(b[:]) | 1) // odd, so that nothing is multiplied away
}

func (s seal) of(words ...uint64) (sum uint64) {
	for _, w := range words {
		sum = (sum + w) * uint64(s)
	}
	return sum
}

// made leaves in R1 the seal of words, each of which an instruction loads into R3.
func (s seal) made(words ...asm.Instruction) asm.Instructions {
	p := asm.Instructions{asm.LoadImm(asm.R2, int64(s), asm.DWord), asm.Mov.Imm(asm.R1, 0)}
	for _, w := range words {
		p = append(p, w, asm.Add.Reg(asm.R1, asm.R3), asm.Mul.Reg(asm.R1, asm.R2))
	}
	return p
}

// words of the key and of further places on the stack.
func words(further ...int16) (loads []asm.Instruction) {
	for _, at := range append([]int16{onStackKey, onStackKey + 8}, further...) {
		loads = append(loads, asm.LoadMem(asm.R3, asm.RFP, at, asm.DWord))
	}
	return loads
}

// taken8 copies eight bytes of the element in R8 to the same place of the copy on the stack.
func taken8(at int16) asm.Instructions {
	return asm.Instructions{asm.LoadMem(asm.R1, asm.R8, at, asm.DWord), asm.StoreMem(asm.RFP, onStackCopy+at, asm.R1, asm.DWord)}
}

// onCopy has R8 mean the copy on the stack.
func onCopy() asm.Instructions {
	return asm.Instructions{asm.Mov.Reg(asm.R8, asm.RFP), asm.Add.Imm(asm.R8, onStackCopy)}
}

func (k key) words() (uint64, uint64) {
	b := binaryOf(k)
	return binary.NativeEndian.Uint64(b), binary.NativeEndian.Uint64(b[8:])
}

// binaryOf is what the kernel has of a key or of an element.
func binaryOf(v any) []byte {
	b, err := binary.Append(nil, binary.NativeEndian, v)
	if err != nil {
		panic(err) // of a type without a fixed size
	}
	return b
}
