package lab

import "testing"

// Parallel tests have different prefixes, and the next ones those of who has ended.
func TestPrefixesAreUsedAgain(t *testing.T) {
	t.Setenv("E2E_PREFIX", "")
	for range 2 {
		t.Run("", func(t *testing.T) {
			for _, want := range []string{"spltp", "spltp2", "spltp3"} {
				if got := TestPrefix(t, "spltp"); got != want {
					t.Errorf("%s, want %s", got, want)
				}
			}
		})
	}
}
