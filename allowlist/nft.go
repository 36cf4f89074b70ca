package allowlist

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

func sortAddrs(all []netip.Addr) { slices.SortFunc(all, netip.Addr.Compare) }

// nft is one transaction.
func (s Set) nft(exists bool, want []Address) string {
	var b strings.Builder
	at := fmt.Sprintf("%s %s %s", s.Family, s.Table, s.Full())
	if !exists {
		fmt.Fprintf(&b, "add table %s %s\n", s.Family, s.Table)
		fmt.Fprintf(&b, "add set %s { type %s; comment %q; }\n", at, s.kernelType(), Mark)
	}
	fmt.Fprintf(&b, "flush set %s\n", at)
	for some := range slices.Chunk(want, 256) {
		fmt.Fprintf(&b, "add element %s {", at)
		for i, a := range some {
			if i > 0 {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, " %s comment %q", a.Addr, s.comment(a))
		}
		b.WriteString(" }\n")
	}
	return b.String()
}

// parseNFT reads libnftables-json(5).
func parseNFT(s Set, text []byte) (Found, error) {
	var listing struct {
		Objects []struct {
			Set *struct {
				Name, Comment string
				Type          any
				Elem          []json.RawMessage
			}
		} `json:"nftables"`
	}
	if err := json.Unmarshal(text, &listing); err != nil {
		return Found{}, err
	}
	for _, o := range listing.Objects {
		if o.Set == nil || o.Set.Name != s.Full() {
			continue
		}
		f := Found{Exists: true, Type: fmt.Sprint(o.Set.Type), Ours: o.Set.Comment == Mark, Addresses: map[netip.Addr]string{}}
		for _, raw := range o.Set.Elem {
			if a, comment, err := nftElement(raw); err == nil {
				f.Addresses[a] = comment
			} else {
				f.Odd = append(f.Odd, string(raw))
			}
		}
		return f, nil
	}
	return Found{}, errNoSuchListing
}

// nftElement is an address, or an object that has it with what else is said of it.
func nftElement(raw json.RawMessage) (netip.Addr, string, error) {
	var plain string
	if json.Unmarshal(raw, &plain) == nil {
		a, err := netip.ParseAddr(plain)
		return a, "", err
	}
	var full struct {
		Elem *struct {
			Val     string
			Comment string
		}
	}
	if err := json.Unmarshal(raw, &full); err != nil {
		return netip.Addr{}, "", err
	}
	if full.Elem == nil {
		return netip.Addr{}, "", errors.New("a range")
	}
	a, err := netip.ParseAddr(full.Elem.Val)
	return a, full.Elem.Comment, err
}
