package allowlist

import (
	"net/netip"
	"reflect"
	"testing"
)

func TestParseSets(t *testing.T) {
	for text, want := range map[string]Sets{"inet/filter/partners": {"inet", "filter", "partners"}, "ip/nat/a-b_c": {"ip", "nat", "a-b_c"}} {
		got, err := ParseNFT(text)
		if says(t, err); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
	for _, text := range []string{"", "partners", "filter/partners", "inet/filter/", "arp/filter/partners", "inet/filter/a b", "inet/fil;ter/a", "inet/filter/a/b", "inet/filter/" + longName(30)} {
		_, err := ParseNFT(text)
		says(t, err, "FAMILY/TABLE/NAME")
	}
	for _, text := range []string{"", "a b", "4a", "a\nflush", longName(30)} {
		_, err := ParseIPSet(text)
		says(t, err, "give a name")
	}
	s, err := ParseIPSet(longName(29))
	if says(t, err); len(Set{s, 4}.Full())+len("~") != 31 {
		t.Error("not what ipset takes")
	}
}

func longName(n int) string {
	name := make([]byte, n)
	for i := range name {
		name[i] = 'a'
	}
	return string(name)
}

func TestPair(t *testing.T) {
	for family, want := range map[string]int{"inet": 2, "ip": 1, "ip6": 1, "": 2} {
		if got := (Sets{Family: family, Table: "t", Name: "n"}).Pair(); len(got) != want {
			t.Errorf("%s: %v", family, got)
		}
	}
	six := Sets{"ip6", "t", "n"}.Pair()[0]
	if of := six.Of(partners().Addresses()); len(of) != 1 || !of[0].Is6() || six.Full() != "n6" {
		t.Errorf("%v", of)
	}
}

var (
	nft4   = Set{Sets{"inet", "filter", "partners"}, 4}
	ipset4 = Set{Sets{Name: "partners"}, 4}
)

func TestCompare(t *testing.T) {
	a, b, c := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("192.0.2.3")
	want := []Address{{a, []string{"x"}}, {b, []string{"y"}}}
	full := map[netip.Addr]string{a: "x", b: "y"}
	set := func(ours bool, addresses map[netip.Addr]string, odd ...string) Found {
		return Found{Exists: true, Type: "ipv4_addr", Ours: ours, Addresses: addresses, Odd: odd}
	}
	for _, tt := range []struct {
		name  string
		found Found
		adopt bool
		want  Change
		err   []string
	}{
		{"none", Found{}, false, Change{true, []netip.Addr{a, b}, nil}, nil},
		{"ours, equal", set(true, full), false, Change{}, nil},
		{"another's, equal", set(false, full), false, Change{}, nil},
		{"ours, empty", set(true, nil), false, Change{true, []netip.Addr{a, b}, nil}, nil},
		{"ours, another address", set(true, map[netip.Addr]string{a: "x", c: "z"}), false, Change{true, []netip.Addr{b}, []netip.Addr{c}}, nil},
		{"ours, for others", set(true, map[netip.Addr]string{a: "x", b: "x"}), false, Change{true, nil, nil}, nil},
		{"ours, with a range in it", set(true, full, "10.0.0.0/8"), false, Change{true, nil, nil}, nil},
		{"another's", set(false, map[netip.Addr]string{c: ""}), false, Change{}, []string{"partners4", "left alone", "--adopt"}},
		{"another's, empty", set(false, nil), false, Change{}, []string{"--adopt"}},
		{"another's, to be adopted", set(false, map[netip.Addr]string{c: ""}), true, Change{true, []netip.Addr{a, b}, []netip.Addr{c}}, nil},
		{"of another type", Found{Exists: true, Type: "inet_service"}, true, Change{}, []string{"partners4", "inet_service", "ipv4_addr"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := nft4.Compare(tt.found, want, tt.adopt)
			says(t, err, tt.err...)
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("%+v, want %+v", got, tt.want)
			}
		})
	}
}

// The texts are what nft 1.0.6 and ipset 7.17 printed.
func TestParseListings(t *testing.T) {
	nft := func(set string) string {
		return `{"nftables": [{"metainfo": {"version": "1.0.6"}}, {"set": {"family": "inet", "name": "partners4", "table": "filter", ` + set + `}}]}`
	}
	a, b := netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("192.0.2.11")
	for _, c := range []struct {
		name string
		set  Set
		text string
		want Found
	}{
		{"nft", nft4, nft(`"type": "ipv4_addr", "handle": 1, "comment": "sallyport", "elem": [{"elem": {"val": "192.0.2.10", "comment": "payments"}}, "192.0.2.11"]`),
			Found{true, "ipv4_addr", true, map[netip.Addr]string{a: "payments", b: ""}, nil}},
		{"nft, ranges", nft4, nft(`"type": "ipv4_addr", "flags": ["interval"], "elem": ["192.0.2.10", {"prefix": {"addr": "10.0.0.0", "len": 8}}, {"range": ["192.0.2.1", "192.0.2.5"]}]`),
			Found{true, "ipv4_addr", false, map[netip.Addr]string{a: ""}, []string{`{"prefix": {"addr": "10.0.0.0", "len": 8}}`, `{"range": ["192.0.2.1", "192.0.2.5"]}`}}},
		{"nft, another type", nft4, nft(`"type": ["ipv4_addr", "inet_service"]`), Found{true, "[ipv4_addr inet_service]", false, map[netip.Addr]string{}, nil}},
		{"ipset", ipset4, "create partners4 hash:ip family inet hashsize 1024 maxelem 65536 comment bucketsize 12 initval 0x55b66176\nadd partners4 192.0.2.10 comment \"sallyport payments\"\n",
			Found{true, "hash:ip family inet", true, map[netip.Addr]string{a: "sallyport payments"}, nil}},
		{"ipset, another's comment", ipset4, "create partners4 hash:ip family inet hashsize 1024 maxelem 65536 comment\nadd partners4 192.0.2.10 comment \"sallyport payments\"\nadd partners4 192.0.2.11 comment \"bob\"\n",
			Found{true, "hash:ip family inet", false, map[netip.Addr]string{a: "sallyport payments", b: "bob"}, nil}},
		{"ipset, without comments", ipset4, "create partners4 hash:ip family inet hashsize 1024 maxelem 65536\nadd partners4 192.0.2.10 timeout 5\n",
			Found{true, "hash:ip family inet", false, map[netip.Addr]string{a: ""}, nil}},
		{"ipset, of networks", ipset4, "create partners4 hash:net family inet hashsize 1024 maxelem 65536\nadd partners4 10.0.0.0/8\n",
			Found{true, "hash:net family inet", false, map[netip.Addr]string{}, []string{"10.0.0.0/8"}}},
		{"ipset, of ports", ipset4, "create partners4 bitmap:port range 0-1024\n", Found{true, "bitmap:port", false, map[netip.Addr]string{}, nil}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := c.set.Parse([]byte(c.text))
			says(t, err)
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("%+v, want %+v", got, c.want)
			}
		})
	}
	for _, c := range []struct {
		set  Set
		text string
	}{{nft4, ""}, {nft4, "{}"}, {nft4, `{"nftables":[{"set":{"name":"other4"}}]}`}, {ipset4, ""}, {ipset4, "create other4 hash:ip family inet\n"}, {ipset4, "add partners4 192.0.2.1\n"}} {
		_, err := c.set.Parse([]byte(c.text))
		says(t, err, "partners4")
	}
}

func FuzzParse(f *testing.F) {
	f.Add(`{"nftables": [{"set": {"name": "partners4", "type": "ipv4_addr", "elem": ["192.0.2.11", {"elem": {"val": "::1"}}]}}]}`)
	f.Add("create partners4 hash:ip family inet comment\nadd partners4 192.0.2.10 comment \"sallyport payments\"\n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, s := range []Set{nft4, ipset4} {
			if found, err := s.Parse([]byte(text)); found.Exists != (err == nil) {
				t.Errorf("%+v with %v", found, err)
			}
		}
	})
}
