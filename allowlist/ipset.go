package allowlist

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"
)

// ipset fills another set and swaps the two, since a restore is no transaction.
func (s Set) ipset(exists bool, want []Address) string {
	var b strings.Builder
	name := s.Full()
	next := name + "~"
	if !exists {
		fmt.Fprintf(&b, "create %s %s comment -exist\n", name, s.kernelType())
	}
	// One that a restore cut short left behind is used.
	fmt.Fprintf(&b, "create %s %s comment -exist\nflush %s\n", next, s.kernelType(), next)
	for _, a := range want {
		fmt.Fprintf(&b, "add %s %s comment %q\n", next, a.Addr, s.comment(a))
	}
	fmt.Fprintf(&b, "swap %s %s\ndestroy %s\n", next, name, next)
	return b.String()
}

var (
	ipsetCreate  = regexp.MustCompile(`^create (\S+) (\S+)( family \S+)?(.*)$`)
	ipsetAdd     = regexp.MustCompile(`^add (\S+) (\S+)(.*)$`)
	ipsetComment = regexp.MustCompile(` comment "([^"]*)"`)
)

// parseIPSet reads what ipset(8) saves. A set is ours when it has room for comments, and
// each element has one of ours.
func parseIPSet(s Set, text []byte) (Found, error) {
	var f Found
	for line := range strings.Lines(string(text)) {
		line = strings.TrimRight(line, "\n")
		if m := ipsetCreate.FindStringSubmatch(line); m != nil && m[1] == s.Full() {
			f = Found{Exists: true, Type: m[2] + m[3], Ours: strings.Contains(m[4]+" ", " comment "), Addresses: map[netip.Addr]string{}}
			continue
		}
		m := ipsetAdd.FindStringSubmatch(line)
		if m == nil || m[1] != s.Full() || !f.Exists {
			return Found{}, fmt.Errorf("not understood: %q", line)
		}
		comment := ""
		if c := ipsetComment.FindStringSubmatch(m[3]); c != nil {
			comment = c[1]
		}
		f.Ours = f.Ours && strings.HasPrefix(comment, Mark+" ")
		if a, err := netip.ParseAddr(m[2]); err == nil {
			f.Addresses[a] = comment
		} else {
			f.Odd = append(f.Odd, m[2])
		}
	}
	if !f.Exists {
		return Found{}, errNoSuchListing
	}
	return f, nil
}
