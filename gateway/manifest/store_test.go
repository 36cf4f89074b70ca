package manifest

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/sallyport/sallyport/gateway"
)

// TestStoreIsWhatItsFilesSay changes one file after another, of which many have the
// same objects, and compares with a store that read them all at once.
func TestStoreIsWhatItsFilesSay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, files := newStore(), map[string]contents{}
		for n := range rapid.IntRange(1, 30).Draw(t, "changes") {
			path := rapid.SampledFrom([]string{"a.yaml", "b.yaml", "c.yaml", "d.yaml"}).Draw(t, "file")
			if rapid.IntRange(0, 3).Draw(t, "kind of change") == 0 {
				s.remove(path)
				delete(files, path)
			} else {
				var c contents
				for _, name := range rapid.SliceOfN(rapid.SampledFrom([]string{"x", "y", "z"}), 0, 4).Draw(t, "pods") {
					pod := &gateway.Pod{Name: name, UID: fmt.Sprint(path, n)}
					c.objects = append(c.objects, object{key: key{kind: "Pod", name: name}, line: n, value: pod})
				}
				s.put(path, c)
				files[path] = c
			}
			fresh := newStore()
			for _, path := range slices.Sorted(maps.Keys(files)) {
				fresh.put(path, files[path])
			}
			if got, want := s.snapshot(), fresh.snapshot(); !reflect.DeepEqual(got, want) {
				t.Fatalf("change by change:\n%v\nat once:\n%v", got, want)
			}
			names := map[string]bool{}
			for _, p := range s.snapshot().Pods {
				if names[p.Name] {
					t.Fatalf("Pod %s is there twice", p.Name)
				}
				names[p.Name] = true
			}
			if !maps.Equal(s.owners(), fresh.owners()) {
				t.Fatalf("owners change by change:\n%v\nat once:\n%v", s.owners(), fresh.owners())
			}
		}
	})
}
