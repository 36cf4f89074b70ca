package nft

import (
	"hash/maphash"
	"slices"

	"github.com/sallyport/sallyport/netfilter"
)

// flattened keeps the boxes of lists of targets from one table to the next: a change of
// one route leaves those of all others, and to divide them takes far longer than to
// compare.
type flattened struct {
	seed        maphash.Seed
	before, now map[uint64]flat
	// room is where the elements of the classifiers' maps are, to be filled anew.
	room map[string]elements
}

type flat struct {
	targets []netfilter.Target
	boxes   []netfilter.Box
}

func newFlattened() *flattened {
	return &flattened{seed: maphash.MakeSeed(), now: map[uint64]flat{}, room: map[string]elements{}}
}

// next begins another table. What is not in it is forgotten with the one after.
func (f *flattened) next() { f.before, f.now = f.now, make(map[uint64]flat, len(f.now)) }

// of is Flatten; the boxes are to be read only.
func (f *flattened) of(targets []netfilter.Target) []netfilter.Box {
	at := f.hash(targets)
	known, is := f.now[at]
	if !is {
		known, is = f.before[at]
	}
	if !is || !slices.EqualFunc(known.targets, targets, sameTarget) {
		known = flat{boxes: netfilter.Flatten(targets)}
		for _, t := range targets { // the caller may change them
			t.Except, t.Ports = slices.Clone(t.Except), slices.Clone(t.Ports)
			known.targets = append(known.targets, t)
		}
	}
	f.now[at] = known
	return known.boxes
}

func (f *flattened) hash(targets []netfilter.Target) uint64 {
	var h maphash.Hash
	h.SetSeed(f.seed)
	for _, t := range targets {
		maphash.WriteComparable(&h, t.CIDR)
		maphash.WriteComparable(&h, t.Value)
		for _, p := range t.Ports {
			maphash.WriteComparable(&h, p)
		}
	}
	return h.Sum64()
}

func sameTarget(a, b netfilter.Target) bool {
	return a.CIDR == b.CIDR && a.Value == b.Value && slices.Equal(a.Except, b.Except) && slices.Equal(a.Ports, b.Ports)
}
