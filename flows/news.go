package flows

import (
	"encoding/binary"
	"hash/maphash"
)

// news are keys by their sums: whole ones would be megabytes in the seconds after an
// election, for the collector to look through just then. Two of one sum are taken for each
// other once in some billion crowds.
type news struct {
	seed maphash.Seed
	sums map[uint64]struct{}
}

func newNews() *news { return &news{seed: maphash.MakeSeed(), sums: map[uint64]struct{}{}} }

func (n *news) sum(k Key) uint64 {
	var b [37]byte
	src, dst := k.Src.As16(), k.Dst.As16()
	copy(b[:], src[:])
	copy(b[16:], dst[:])
	binary.NativeEndian.PutUint16(b[32:], k.SrcPort)
	binary.NativeEndian.PutUint16(b[34:], k.DstPort)
	b[36] = k.Protocol
	return maphash.Bytes(n.seed, b[:])
}

func (n *news) add(k Key) { n.sums[n.sum(k)] = struct{}{} }

// has is false of none.
func (n *news) has(k Key) bool {
	if n == nil {
		return false
	}
	_, is := n.sums[n.sum(k)]
	return is
}
