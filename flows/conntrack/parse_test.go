package conntrack

import "testing"

func FuzzParse(f *testing.F) {
	f.Add([]byte{2, 0, 0, 0, 8, 0, 3, 0, 0, 0, 0, 1})
	f.Add([]byte{2, 0, 0, 0, 12, 0, 1, 128, 8, 0, 1, 128, 4, 0, 1, 0})
	f.Add([]byte{2, 0, 0, 0, 16, 0, 4, 128, 12, 0, 1, 128, 5, 0, 1, 0, 3, 0, 0, 0})
	f.Add([]byte{2, 0, 0, 0, 32, 0, 1, 128, 28, 0, 2, 128, 5, 0, 1, 0, 1, 0, 0, 0, 6, 0, 4, 0, 1, 2, 0, 0, 5, 0, 5, 0, 8, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = parse(b) // no input may panic
	})
}
