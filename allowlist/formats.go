package allowlist

import (
	"fmt"
	"slices"
	"strings"
)

// Formats that Print knows.
const (
	Text  = "text"  // an address and, behind a tab, for whom, in each line
	JSON  = "json"  // what Decode reads
	NFT   = "nft"   // for nft -f
	IPSet = "ipset" // for ipset restore
	Salt  = "salt"  // a pillar
)

// Formats are all that Print knows.
var Formats = []string{Text, JSON, NFT, IPSet, Salt}

// DefaultNFT and DefaultIPSet are the sets of the texts when nothing else is asked for.
var (
	DefaultNFT   = Sets{"inet", "allowlist", Mark}
	DefaultIPSet = Sets{Name: Mark}
)

// Print gives the list in a format. Sets are those of nft and ipset; the zero value is
// their default. A list without addresses that does not mean it is given as JSON only,
// which says so: whoever takes a text for a firewall would lock everybody out.
func Print(l List, format string, sets Sets) ([]byte, error) {
	if err := l.Nothing(); err != nil && format != JSON {
		return nil, err
	}
	var b strings.Builder
	switch format {
	case JSON:
		return Encode(l), nil
	case Text:
		for _, a := range l.Addresses() {
			fmt.Fprintf(&b, "%s\t%s\n", a.Addr, strings.Join(a.Names, ","))
		}
	case NFT, IPSet:
		if sets == (Sets{}) {
			sets = DefaultNFT
			if format == IPSet {
				sets = DefaultIPSet
			}
		}
		head(&b, l)
		for _, s := range sets.Pair() {
			b.WriteString(s.Restore(false, s.Of(l.Addresses())))
		}
	case Salt:
		head(&b, l)
		salt(&b, l)
	default:
		return nil, fmt.Errorf("format %s: choose one of %s", format, strings.Join(Formats, ", "))
	}
	return []byte(b.String()), nil
}

func head(b *strings.Builder, l List) {
	fmt.Fprintf(b, "# Sallyport's list of %s\n", l.Kind)
	if l.Doubt != "" {
		fmt.Fprintf(b, "# It may be old: %s\n", strings.Join(strings.Fields(l.Doubt), " "))
	}
}

// salt is YAML. Names are quoted: a route may be named null, or 1e3.
func salt(b *strings.Builder, l List) {
	fmt.Fprintf(b, "sallyport:\n  allowlist:\n    %s:", l.Kind)
	if len(l.Entries) == 0 {
		b.WriteString(" {}\n")
		return
	}
	b.WriteByte('\n')
	entries := slices.Clone(l.Entries)
	slices.SortFunc(entries, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
	for _, e := range entries {
		fmt.Fprintf(b, "      %q:", e.Name)
		if len(e.Addresses) == 0 {
			b.WriteString(" []")
		}
		b.WriteByte('\n')
		addrs := slices.Clone(e.Addresses)
		sortAddrs(addrs)
		for _, a := range addrs {
			fmt.Fprintf(b, "        - %q\n", a)
		}
	}
}
