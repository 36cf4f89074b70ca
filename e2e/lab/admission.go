package lab

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// partnerTable admits the VIPs to PartnerAddr. Everything else is counted by
// source, TCP and UDP also by what it was sent to, resets apart. ICMP errors are no attempt to
// get in: routers on the way speak under their own addresses.
func partnerTable(vips []netip.Addr) string {
	var admitted []string
	for _, v := range vips {
		admitted = append(admitted, v.String())
	}
	return fmt.Sprintf(`table ip lab {
	set admitted {
		type ipv4_addr
		flags interval
		elements = { %s }
	}
	set wrong {
		type ipv4_addr . inet_proto . inet_service
		size 65535
		flags dynamic
		counter
	}
	set resets {
		type ipv4_addr . inet_proto . inet_service
		size 65535
		flags dynamic
		counter
	}
	chain input {
		type filter hook input priority 0
		ip daddr %s goto guard
	}
	chain guard {
		ip saddr @admitted accept
		icmp type { destination-unreachable, time-exceeded, parameter-problem } accept
		tcp flags & rst == rst update @resets { ip saddr . meta l4proto . th dport } drop
		meta l4proto { tcp, udp } update @wrong { ip saddr . meta l4proto . th dport } drop
		update @wrong { ip saddr . meta l4proto . 0 } drop
	}
}
`, strings.Join(admitted, ", "), PartnerAddr)
}

// Admit lets further sources in.
func (p *Partner) Admit(sources ...netip.Prefix) error {
	for _, s := range sources {
		if _, err := p.ns.Run("nft", "add", "element", "ip", "lab", "admitted", "{ "+s.String()+" }"); err != nil {
			return fmt.Errorf("partner: admit %s: %w", s, err)
		}
	}
	return nil
}

// Refusal is how many packets of one source to one port the partner refused.
type Refusal struct {
	Source   netip.Addr
	Protocol string // "tcp", "udp", "icmp", ...
	Port     uint16 // 0 where the protocol has none
	Packets  uint64
	Reset    bool // they end a connection, or answer to one that is none
}

// Refused lists what the partner did not admit, by source.
func (p *Partner) Refused() ([]Refusal, error) {
	var all []Refusal
	for _, set := range []string{"wrong", "resets"} {
		out, err := p.ns.Run("nft", "-j", "list", "set", "ip", "lab", set)
		if err != nil {
			return nil, fmt.Errorf("partner: read what was refused: %w", err)
		}
		refusals, err := parseRefusals([]byte(out))
		if err != nil {
			return nil, err
		}
		for i := range refusals {
			refusals[i].Reset = set == "resets"
		}
		all = append(all, refusals...)
	}
	return all, nil
}

// RefusedPackets sums Refused, leaving out the ports given.
func (p *Partner) RefusedPackets(except ...uint16) (uint64, error) {
	refusals, err := p.Refused()
	var sum uint64
	for _, r := range refusals {
		if !slices.Contains(except, r.Port) {
			sum += r.Packets
		}
	}
	return sum, err
}

// ForgetRefused sets the counts back to nothing.
func (p *Partner) ForgetRefused() error {
	for _, set := range []string{"wrong", "resets"} {
		if _, err := p.ns.Run("nft", "flush", "set", "ip", "lab", set); err != nil {
			return err
		}
	}
	return nil
}

func parseRefusals(text []byte) ([]Refusal, error) {
	var listing struct {
		Nftables []struct {
			Set struct {
				Elem []struct {
					Elem struct {
						Val struct {
							Concat [3]any `json:"concat"`
						} `json:"val"`
						Counter struct {
							Packets uint64 `json:"packets"`
						} `json:"counter"`
					} `json:"elem"`
				} `json:"elem"`
			} `json:"set"`
		} `json:"nftables"`
	}
	if err := json.Unmarshal(text, &listing); err != nil {
		return nil, fmt.Errorf("read nft's listing: %w", err)
	}
	var refusals []Refusal
	for _, object := range listing.Nftables {
		for _, e := range object.Set.Elem {
			c := e.Elem.Val.Concat
			addr, err := netip.ParseAddr(fmt.Sprint(c[0]))
			if err != nil {
				return nil, fmt.Errorf("read nft's listing: %w", err)
			}
			port, _ := c[2].(float64)
			refusals = append(refusals, Refusal{
				Source: addr, Protocol: fmt.Sprint(c[1]), Port: uint16(port), Packets: e.Elem.Counter.Packets,
			})
		}
	}
	slices.SortFunc(refusals, func(a, b Refusal) int {
		return cmp.Or(a.Source.Compare(b.Source), cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Port, b.Port))
	})
	return refusals, nil
}
