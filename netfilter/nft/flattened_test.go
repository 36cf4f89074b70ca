package nft

import (
	"net/netip"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	nf "github.com/sallyport/sallyport/netfilter"
)

// TestFlattenedIsFlatten asks for lists that differ in little, again and again.
func TestFlattenedIsFlatten(t *testing.T) {
	prefix := rapid.Map(rapid.IntRange(0, 15), func(n int) netip.Prefix {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(n &^ 3)}), 28+n&3).Masked()
	})
	target := rapid.Custom(func(t *rapid.T) nf.Target {
		out := nf.Target{CIDR: prefix.Draw(t, "cidr"), Value: rapid.Uint32Range(1, 2).Draw(t, "value")}
		if rapid.Bool().Draw(t, "with an exception") {
			out.Except = []netip.Prefix{prefix.Draw(t, "exception")}
		}
		for _, port := range rapid.SliceOfN(rapid.Uint16Range(1, 3), 0, 2).Draw(t, "ports") {
			out.Ports = append(out.Ports, nf.ProtocolPorts{Protocol: 6, Ports: nf.Ports{First: port, Last: port}})
		}
		return out
	})
	rapid.Check(t, func(t *rapid.T) {
		f, targets := newFlattened(), []nf.Target(nil)
		for range rapid.IntRange(1, 20).Draw(t, "lists") {
			switch n := len(targets); {
			case n > 0 && rapid.Bool().Draw(t, "change one"): // in place
				targets[rapid.IntRange(0, n-1).Draw(t, "which")] = target.Draw(t, "target")
			default:
				targets = rapid.SliceOfN(target, 0, 3).Draw(t, "targets")
			}
			for i := range targets {
				if len(targets[i].Except) > 0 && rapid.Bool().Draw(t, "change the exception") {
					targets[i].Except[0] = prefix.Draw(t, "another exception")
				}
			}
			if got, want := f.of(targets), nf.Flatten(targets); !reflect.DeepEqual(got, want) {
				t.Fatalf("%v gives\n%v\nnot\n%v", targets, got, want)
			}
			if rapid.Bool().Draw(t, "another table") {
				f.next()
			}
		}
	})
}

func TestNames(t *testing.T) {
	for name, want := range map[string][2]bool{
		"": {false, false}, "drop": {true, true}, "d_2": {false, true}, "_": {false, true}, "2d": {true, false},
		"to-192.0.2.10": {false, true}, "a/b": {false, true}, "-a": {false, false}, ".a": {false, false}, "a b": {false, false},
		"a:b": {false, false}, "é": {false, false}, "aé": {false, false},
	} {
		if bare(name) != want[0] || readable(name) != want[1] {
			t.Errorf("%q: bare %t, readable %t", name, bare(name), readable(name))
		}
	}
}
