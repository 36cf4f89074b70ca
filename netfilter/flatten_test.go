package netfilter

import (
	"net/netip"
	"reflect"
	"testing"

	"pgregory.net/rapid"
)

func TestFlattenExamples(t *testing.T) {
	p := netip.MustParsePrefix
	a := netip.MustParseAddr
	all := func(first, last string, value uint32) Box {
		return Box{First: a(first), Last: a(last), LastProtocol: 255, Ports: EveryPort, Value: value}
	}
	for _, c := range []struct {
		name    string
		targets []Target
		want    []Box
	}{
		{"nothing", nil, nil},
		{"one", []Target{{CIDR: p("10.0.0.0/8"), Value: 1}}, []Box{all("10.0.0.0", "10.255.255.255", 1)}},
		{"host bits are ignored", []Target{{CIDR: p("10.0.0.7/24"), Value: 1}}, []Box{all("10.0.0.0", "10.0.0.255", 1)}},
		{"a hole", []Target{{CIDR: p("10.0.0.0/24"), Except: []netip.Prefix{p("10.0.0.8/32")}, Value: 1}},
			[]Box{all("10.0.0.0", "10.0.0.7", 1), all("10.0.0.9", "10.0.0.255", 1)}},
		{"neighbours of one value", []Target{{CIDR: p("10.0.0.0/25"), Value: 1}, {CIDR: p("10.0.0.128/25"), Value: 1}},
			[]Box{all("10.0.0.0", "10.0.0.255", 1)}},
		{"up to the end", []Target{{CIDR: p("0.0.0.0/0"), Value: 1}, {CIDR: p("255.255.255.255/32"), Value: 2}, {CIDR: p("::/0"), Value: 3}},
			[]Box{all("0.0.0.0", "255.255.255.254", 1), all("255.255.255.255", "255.255.255.255", 2), all("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 3)}},
		{"ports before none", []Target{{CIDR: p("10.0.0.0/24"), Value: 1}, {CIDR: p("10.0.0.0/24"), Value: 2, Ports: []ProtocolPorts{{6, Ports{443, 443}}}}},
			[]Box{
				{a("10.0.0.0"), a("10.0.0.255"), 0, 5, EveryPort, 1},
				{a("10.0.0.0"), a("10.0.0.255"), 6, 6, Ports{0, 442}, 1},
				{a("10.0.0.0"), a("10.0.0.255"), 6, 6, Ports{443, 443}, 2},
				{a("10.0.0.0"), a("10.0.0.255"), 6, 6, Ports{444, 65535}, 1},
				{a("10.0.0.0"), a("10.0.0.255"), 7, 255, EveryPort, 1},
			}},
	} {
		if got := Flatten(c.targets); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s:\n got %v\nwant %v", c.name, got, c.want)
		}
	}
}

// classifyNaively follows the definition of Target word by word.
func classifyNaively(targets []Target, addr netip.Addr, protocol uint8, port uint16) uint32 {
	best := -1
	for i, t := range targets {
		if !t.CIDR.Contains(addr) || excepted(t, addr) || !hasPort(t, protocol, port) {
			continue
		}
		if best < 0 || t.CIDR.Bits() > targets[best].CIDR.Bits() ||
			t.CIDR.Bits() == targets[best].CIDR.Bits() && len(t.Ports) > 0 && len(targets[best].Ports) == 0 {
			best = i
		}
	}
	if best < 0 {
		return 0
	}
	return targets[best].Value
}

func TestFlattenAgreesWithTheDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		// A small world, so that targets meet.
		addr := rapid.Custom(func(t *rapid.T) netip.Addr {
			if rapid.IntRange(0, 7).Draw(t, "six") == 0 {
				return netip.AddrFrom16([16]byte{0xfd, 15: byte(rapid.IntRange(0, 31).Draw(t, "low6"))})
			}
			high := rapid.SampledFrom([]byte{0, 10, 255}).Draw(t, "high")
			return netip.AddrFrom4([4]byte{high, high, high, high&0xe0 | byte(rapid.IntRange(0, 31).Draw(t, "low"))})
		})
		prefix := rapid.Custom(func(t *rapid.T) netip.Prefix {
			a := addr.Draw(t, "addr")
			bits := rapid.IntRange(a.BitLen()-6, a.BitLen()).Draw(t, "bits")
			if rapid.IntRange(0, 5).Draw(t, "everything") == 0 {
				bits = 0
			}
			return netip.PrefixFrom(a, bits)
		})
		protocol := rapid.SampledFrom([]uint8{0, 1, 6, 7, 17, 132, 255})
		port := rapid.SampledFrom([]uint16{0, 1, 2, 3, 4, 5, 65534, 65535})
		ports := rapid.Custom(func(t *rapid.T) ProtocolPorts {
			x, y := port.Draw(t, "x"), port.Draw(t, "y")
			return ProtocolPorts{protocol.Draw(t, "protocol"), Ports{min(x, y), max(x, y)}}
		})
		targets := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Target {
			return Target{
				CIDR: prefix.Draw(t, "cidr"), Except: rapid.SliceOfN(prefix, 0, 2).Draw(t, "except"),
				Ports: rapid.SliceOfN(ports, 0, 3).Draw(t, "ports"), Value: rapid.Uint32Range(1, 4).Draw(t, "value"),
			}
		}), 0, 8).Draw(t, "targets")

		boxes := Flatten(targets)
		for range 200 {
			a, proto, p := addr.Draw(t, "a"), protocol.Draw(t, "proto"), port.Draw(t, "p")
			var found []uint32
			for _, b := range boxes {
				if b.First.BitLen() == a.BitLen() && !a.Less(b.First) && !b.Last.Less(a) && b.FirstProtocol <= proto && proto <= b.LastProtocol &&
					b.Ports.First <= p && p <= b.Ports.Last {
					found = append(found, b.Value)
				}
			}
			want := classifyNaively(targets, a, proto, p)
			if len(found) > 1 || len(found) == 1 && found[0] != want || len(found) == 0 && want != 0 {
				t.Fatalf("%s protocol %d port %d is in boxes of values %v, want %d\n%v", a, proto, p, found, want, boxes)
			}
		}
	})
}
