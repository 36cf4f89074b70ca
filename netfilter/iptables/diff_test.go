package iptables

import (
	"strings"
	"testing"
)

// TestCommonIsLongest checks that no more rules are rewritten than must be.
func TestCommonIsLongest(t *testing.T) {
	for _, c := range []struct {
		have, want string
		stay       int
	}{
		{"abcd", "abcd", 4}, {"abcd", "bcd", 3}, {"abcd", "abxcd", 4}, {"abcd", "dabc", 3}, {"abcd", "bcda", 3},
		{"abcd", "dcba", 1}, {"abc", "xyz", 0}, {"", "abc", 0}, {"aab", "ab", 2}, {"ab", "aab", 2}, {"abcde", "eabcd", 4}, {"abcde", "deabc", 3},
	} {
		var have []listed
		for _, r := range strings.Split(c.have, "") {
			have = append(have, listed{comment: r})
		}
		want := strings.Split(c.want, "")
		got := common(have, want)
		if len(got) != c.stay {
			t.Errorf("%s to %s: %d rules stay, want %d", c.have, c.want, len(got), c.stay)
		}
		for i, p := range got {
			if have[p.have].comment != want[p.want] || (i > 0 && (got[i-1].have >= p.have || got[i-1].want >= p.want)) {
				t.Errorf("%s to %s: %v are not the same rules in the same order", c.have, c.want, got)
			}
		}
	}
}
