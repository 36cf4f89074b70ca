package allowlist

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"net/netip"
	"slices"
	"strings"
)

// format is raised whenever an older reader would misunderstand.
const format = 1

// most is how many addresses a list has at most: what a set of ipset holds by default.
const most = 65536

type document struct {
	Format int `json:"format"`
	List
}

// Encode gives a list as JSON, the same for equal lists.
func Encode(l List) []byte {
	l.Entries = slices.Clone(l.Entries)
	slices.SortFunc(l.Entries, func(a, b Entry) int { return cmp.Compare(a.Name, b.Name) })
	for i, e := range l.Entries {
		l.Entries[i].Addresses = slices.SortedFunc(slices.Values(e.Addresses), netip.Addr.Compare)
	}
	if l.Entries == nil {
		l.Entries = []Entry{}
	}
	text, err := json.MarshalIndent(document{format, l}, "", "  ")
	if err != nil {
		panic(err) // no type in it can be refused
	}
	return append(text, '\n')
}

// Decode reads what Encode gave. It takes no list in part, and none that opens more than
// single addresses of hosts.
func Decode(text []byte) (List, error) {
	var d document
	if err := json.Unmarshal(text, &d); err != nil {
		return List{}, fmt.Errorf("not a list: %w", err)
	}
	if d.Format != format {
		return List{}, fmt.Errorf("a list of format %d, this program reads %d: run the same version on both ends", d.Format, format)
	}
	if d.Kind != Routes && d.Kind != Nodes {
		return List{}, fmt.Errorf("a list of %q, this program knows those of routes and nodes", d.Kind)
	}
	names, n := map[string]bool{}, 0
	for _, e := range d.Entries {
		if !sound(e.Name) {
			return List{}, fmt.Errorf("%q is no name of a Kubernetes object", e.Name)
		}
		if names[e.Name] {
			return List{}, fmt.Errorf("%s is in the list twice", e.Name)
		}
		names[e.Name] = true
		for _, a := range e.Addresses {
			if err := Admissible(a); err != nil {
				return List{}, fmt.Errorf("%s: %w", e.Name, err)
			}
		}
		n += len(e.Addresses)
	}
	switch {
	case n > most:
		return List{}, fmt.Errorf("a list of %d addresses, more than the %d that are taken", n, most)
	case d.Empty && n > 0:
		return List{}, fmt.Errorf("a list of %d addresses that says it is empty", n)
	}
	return d.List, nil
}

// Admissible is an error where an address cannot be one host's.
func Admissible(a netip.Addr) error {
	if !a.IsValid() || !a.IsGlobalUnicast() || a.Zone() != "" || a.Is4In6() {
		return fmt.Errorf("%s is not the address of a host that others reach", a)
	}
	return nil
}

// sound is a name as the API server takes it: it needs no quoting beyond quotes.
func sound(name string) bool {
	return name != "" && len(name) <= 253 && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-.") == ""
}

const seal = "sallyport-allowlist %d crc32c %08x\n"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Seal is a list for a disk.
func Seal(l List) []byte {
	body := Encode(l)
	return append(fmt.Appendf(nil, seal, format, crc32.Checksum(body, castagnoli)), body...)
}

// Unseal reads what Seal gave, and nothing that was damaged meanwhile.
func Unseal(text []byte) (List, error) {
	head, body, found := bytes.Cut(text, []byte("\n"))
	var version int
	var sum uint32
	if n, err := fmt.Sscanf(string(head)+"\n", seal, &version, &sum); !found || n != 2 || err != nil {
		return List{}, errors.New("not a saved list, or cut short")
	}
	if got := crc32.Checksum(body, castagnoli); got != sum {
		return List{}, fmt.Errorf("damaged: checksum %08x, written as %08x", got, sum)
	}
	return Decode(body)
}
