package allowlist

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
)

// Sets are a pair of a firewall's sets, one for each version of IP: NAME4 and NAME6.
type Sets struct {
	// Family and Table are nftables'; "" for ipset.
	Family, Table string
	Name          string
}

// Mark is how a set of ours is known: the comment of one of nftables, the begin of every
// element's in one of ipset.
const Mark = "sallyport"

var (
	// A name of ipset has 31 characters (IPSET_MAXNAMELEN), of which two are ours.
	setName   = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]{0,28}$`)
	tableName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.-]{0,62}$`)
)

// ParseNFT reads FAMILY/TABLE/NAME.
func ParseNFT(text string) (Sets, error) {
	p := strings.Split(text, "/")
	if len(p) != 3 || (p[0] != "inet" && p[0] != "ip" && p[0] != "ip6") || !tableName.MatchString(p[1]) || !setName.MatchString(p[2]) {
		return Sets{}, fmt.Errorf("%s: give FAMILY/TABLE/NAME, such as inet/filter/partners, with inet, ip or ip6 first and a NAME of at most 29 letters, digits, - and _", text)
	}
	return Sets{p[0], p[1], p[2]}, nil
}

// ParseIPSet reads NAME.
func ParseIPSet(text string) (Sets, error) {
	if !setName.MatchString(text) {
		return Sets{}, fmt.Errorf("%s: give a name of at most 29 letters, digits, - and _ that begins with a letter", text)
	}
	return Sets{Name: text}, nil
}

func (s Sets) String() string {
	if s.Table == "" {
		return "ipset " + s.Name
	}
	return "nft " + s.Family + " " + s.Table + " " + s.Name
}

// Set is one of a pair.
type Set struct {
	Sets
	Version int // of IP
}

// Pair are the sets that can be: a table of one family has one.
func (s Sets) Pair() []Set {
	switch s.Family {
	case "ip":
		return []Set{{s, 4}}
	case "ip6":
		return []Set{{s, 6}}
	}
	return []Set{{s, 4}, {s, 6}}
}

// Full is the set's own name.
func (s Set) Full() string { return fmt.Sprintf("%s%d", s.Name, s.Version) }

func (s Set) String() string { return strings.TrimSuffix(s.Sets.String(), s.Name) + s.Full() }

// Of are the addresses that belong into the set.
func (s Set) Of(all []Address) []Address {
	var some []Address
	for _, a := range all {
		if a.Is4() == (s.Version == 4) {
			some = append(some, a)
		}
	}
	return some
}

// Found is a set as the kernel has it.
type Found struct {
	Exists bool
	// Type is what it holds, as nft and ipset call it.
	Type string
	// Ours: this program made it, or filled it.
	Ours bool
	// Addresses with their comments. Odd are elements that are no single address.
	Addresses map[netip.Addr]string
	Odd       []string
}

// Change of a set.
type Change struct {
	Needed         bool
	Added, Removed []netip.Addr
}

// Compare says what has to change for the set to hold these addresses and nothing else.
// It refuses to change a set that is another's, unless that is to be adopted.
func (s Set) Compare(f Found, want []Address, adopt bool) (Change, error) {
	if f.Exists && f.Type != s.kernelType() {
		return Change{}, fmt.Errorf("%s holds %s, and would have to hold %s: give another name, or delete it", s, f.Type, s.kernelType())
	}
	c := Change{Needed: !f.Exists || len(f.Odd) > 0}
	left := make(map[netip.Addr]string, len(f.Addresses))
	for a, comment := range f.Addresses {
		left[a] = comment
	}
	for _, a := range want {
		comment, has := left[a.Addr]
		if !has {
			c.Added = append(c.Added, a.Addr)
		}
		c.Needed = c.Needed || !has || comment != s.comment(a)
		delete(left, a.Addr)
	}
	for a := range left {
		c.Removed, c.Needed = append(c.Removed, a), true
	}
	sortAddrs(c.Removed)
	if c.Needed && f.Exists && !f.Ours && !adopt {
		return Change{}, fmt.Errorf("%s exists and is not this program's, so it is left alone: give another name, or --adopt to have what it holds replaced", s)
	}
	return c, nil
}

// Restore is the text for `nft -f` or `ipset restore` that replaces what the set holds, in
// one step.
func (s Set) Restore(exists bool, want []Address) string {
	if s.Table == "" {
		return s.ipset(exists, want)
	}
	return s.nft(exists, want)
}

// Program that takes the text.
func (s Sets) Program() []string {
	if s.Table == "" {
		return []string{"ipset", "restore"}
	}
	return []string{"nft", "-f", "-"}
}

// Listing is the command that shows the set.
func (s Set) Listing() []string {
	if s.Table == "" {
		return []string{"ipset", "save", s.Full()}
	}
	return []string{"nft", "-j", "list", "set", s.Family, s.Table, s.Full()}
}

// Parse reads what the command printed.
func (s Set) Parse(text []byte) (Found, error) {
	parse := parseNFT
	if s.Table == "" {
		parse = parseIPSet
	}
	found, err := parse(s, text)
	if err != nil {
		return Found{}, fmt.Errorf("read %s: %w", s, err)
	}
	return found, nil
}

func (s Set) kernelType() string {
	switch {
	case s.Table == "" && s.Version == 4:
		return "hash:ip family inet"
	case s.Table == "":
		return "hash:ip family inet6"
	case s.Version == 4:
		return "ipv4_addr"
	}
	return "ipv6_addr"
}

// comment of an element: for whom it is.
func (s Set) comment(a Address) string {
	text := strings.Join(a.Names, ",")
	if s.Table == "" {
		text = Mark + " " + text
	}
	// nftables takes 128 characters (NFTNL_UDATA_COMMENT_MAXLEN), ipset 255.
	return text[:min(len(text), 120)]
}

var errNoSuchListing = errors.New("there is no such set in what was listed")
