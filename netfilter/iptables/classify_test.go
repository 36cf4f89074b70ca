package iptables

import (
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	nf "github.com/sallyport/sallyport/netfilter"
)

// TestMergeKeepsEachClassesPrecedence checks the one order of rules against the
// model's own definition, for classes that may disagree with each other.
func TestMergeKeepsEachClassesPrecedence(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		target := rapid.Custom(func(t *rapid.T) nf.Target {
			out := nf.Target{
				CIDR:  netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(rapid.IntRange(0, 2).Draw(t, "net")), 0, 0}), rapid.SampledFrom([]int{0, 8, 16}).Draw(t, "bits")).Masked(),
				Value: uint32(rapid.IntRange(1, 3).Draw(t, "value")),
			}
			if rapid.Bool().Draw(t, "ports") {
				out.Ports = []nf.ProtocolPorts{{Protocol: 6}}
			}
			return out
		})
		classes := rapid.SliceOfN(rapid.SliceOfN(target, 0, 6), 1, 5).Draw(t, "classes")
		placed := merge(classes)
		for class, targets := range classes {
			var got []nf.Target
			for _, p := range placed {
				if slices.Contains(p.classes, class) {
					got = append(got, p.Target)
				}
			}
			var want []nf.Target
			for _, w := range slices.SortedStableFunc(slices.Values(targets), precedence) {
				if !slices.ContainsFunc(want, func(t nf.Target) bool { return same(t, w) }) {
					want = append(want, w)
				}
			}
			if !slices.EqualFunc(got, want, same) {
				t.Fatalf("class %d meets %v, want %v", class, got, want)
			}
		}
	})
}

func same(a, b nf.Target) bool {
	return a.CIDR == b.CIDR && a.Value == b.Value && slices.Equal(a.Ports, b.Ports)
}

func TestMergePlacesAgreedTargetsOnce(t *testing.T) {
	at := func(v uint32) nf.Target { return nf.Target{CIDR: netip.MustParsePrefix("10.0.0.0/8"), Value: v} }
	if got := merge([][]nf.Target{{at(1), at(3)}, {at(2), at(3)}, {at(1), at(2), at(3)}}); len(got) != 3 {
		t.Errorf("%d places for 3 targets that all classes order alike", len(got))
	}
	if got := merge([][]nf.Target{{at(1), at(2)}, {at(2), at(1)}}); len(got) != 3 {
		t.Errorf("%d places, want one target twice", len(got))
	}
}
