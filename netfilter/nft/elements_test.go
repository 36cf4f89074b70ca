package nft

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestElementsAreWhatAMapWouldBe follows what is said of elements, and compares lists,
// with few enough keys that many meet.
func TestElementsAreWhatAMapWouldBe(t *testing.T) {
	drawn := rapid.Custom(func(t *rapid.T) element {
		first := rapid.IntRange(0, 9).Draw(t, "first")
		last := rapid.IntRange(first, min(first+2, 9)).Draw(t, "last")
		return element{key{fmt.Sprint(first), fmt.Sprint(last)}, rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "data")}
	})
	asMap := func(e elements) map[key]string {
		m := map[key]string{}
		for i, is := range e {
			m[is.key] = is.data
			if i > 0 && e[i-1].compare(is.key) >= 0 {
				t.Fatalf("%v is not in order", e)
			}
		}
		return m
	}
	rapid.Check(t, func(t *rapid.T) {
		have := elements{}
		is := map[key]string{}
		for range rapid.IntRange(1, 8).Draw(t, "times") {
			var all []said
			for _, e := range rapid.SliceOfN(drawn, 0, 12).Draw(t, "said") {
				s := said{e, rapid.Bool().Draw(t, "gone")}
				all = append(all, s)
				if is[e.key] = e.data; s.gone {
					delete(is, e.key)
				}
			}
			if have = have.after(all); !maps.Equal(asMap(have), is) {
				t.Fatalf("after %v it is\n%v, want\n%v", all, have, is)
			}
			want := map[key]string{}
			list := rapid.SliceOfN(drawn, 0, 30).Draw(t, "want")
			for _, e := range list {
				want[e.key] = e.data
			}
			wanted := ordered(list)
			if !maps.Equal(asMap(wanted), want) {
				t.Fatalf("ordered it is %v, want %v", wanted, want)
			}
			gone, added := wanted.differ(have)
			different := func(a, b map[key]string) map[key]string {
				c := maps.Clone(a)
				maps.DeleteFunc(c, func(k key, data string) bool { other, there := b[k]; return there && other == data })
				return c
			}
			if !maps.Equal(asMap(gone), different(is, want)) || !maps.Equal(asMap(added), different(want, is)) {
				t.Fatalf("from %v to %v: gone %v, added %v", have, wanted, gone, added)
			}
			for k, data := range want {
				if found, there := wanted.find(k); !there || found != data {
					t.Fatalf("%v does not have %v", wanted, k)
				}
			}
			if _, there := wanted.find(key{"x", "x"}); there || !slices.IsSortedFunc(wanted, func(a, b element) int { return a.compare(b.key) }) {
				t.Fatalf("%v has what it has not", wanted)
			}
		}
	})
}
