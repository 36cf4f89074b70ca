package lab

import (
	"cmp"
	"fmt"
	"os"
	"sync"
	"testing"
)

var inUse = struct {
	sync.Mutex
	prefixes map[string]bool
}{prefixes: map[string]bool{}}

// TestPrefix gives the test a prefix that no parallel one has until it has ended: the
// environment's E2E_PREFIX or the package's own, or the first free of those with a number.
// They are the same in every run, which finds by them what an interrupted one left.
func TestPrefix(t testing.TB, own string) string {
	t.Helper()
	first := cmp.Or(os.Getenv("E2E_PREFIX"), own)
	inUse.Lock()
	defer inUse.Unlock()
	prefix := first
	for n := 2; inUse.prefixes[prefix]; n++ {
		prefix = fmt.Sprint(first, n)
	}
	inUse.prefixes[prefix] = true
	t.Cleanup(func() {
		inUse.Lock()
		defer inUse.Unlock()
		delete(inUse.prefixes, prefix)
	})
	return prefix
}
