package vip

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	addr := netip.MustParseAddr
	for s, want := range map[string]VIP{
		"192.0.2.10":                            {Addr: addr("192.0.2.10")},
		"192.0.2.10@eth0":                       {Addr: addr("192.0.2.10"), Interface: "eth0"},
		"192.0.2.10@eth0.7,via=10.0.0.10@eth1":  {addr("192.0.2.10"), "eth0.7", addr("10.0.0.10"), "eth1"},
		"192.0.2.10,via=10.0.0.10":              {Addr: addr("192.0.2.10"), Via: addr("10.0.0.10")},
		"2001:db8::10@eth0,via=fd00::10@eth1":   {addr("2001:db8::10"), "eth0", addr("fd00::10"), "eth1"},
		"192.0.2.10@very-long-name0":            {Addr: addr("192.0.2.10"), Interface: "very-long-name0"},
		"192.0.2.10,via=10.0.0.10@wlp0s20f3.10": {Addr: addr("192.0.2.10"), Via: addr("10.0.0.10"), ViaInterface: "wlp0s20f3.10"},
	} {
		got, err := Parse(s)
		if err != nil || got != want {
			t.Errorf("Parse(%q) = %+v, %v; want %+v", s, got, err, want)
		}
		if got.String() != s {
			t.Errorf("Parse(%q).String() = %q", s, got)
		}
	}
}

func TestParseNamesValueAndCure(t *testing.T) {
	for s, cure := range map[string]string{
		"":                               "address is missing",
		"@eth0":                          "address is missing",
		"192.0.2.300":                    "no IP address",
		"192.0.2.10/24":                  "one address",
		"gateway":                        Example,
		"192.0.2.10@":                    "no interface name",
		"192.0.2.10@a b":                 "no interface name",
		"192.0.2.10@sixteen-letters-":    "1 to 15 characters",
		"192.0.2.10@eth0@eth1":           "no interface name",
		"192.0.2.10,192.0.2.11":          "give the flag again",
		"192.0.2.10,via=":                "via: the address is missing",
		"192.0.2.10,via=192.0.2.10":      "leave via= out",
		"192.0.2.10,via=fd00::1":         "two families",
		"192.0.2.10,via=10.0.0.1,via=10": "no IP address",
		"127.0.0.1":                      "unicast",
		"0.0.0.0":                        "unicast",
		"224.0.0.1":                      "unicast",
		"255.255.255.255":                "unicast",
		"fe80::1%eth0":                   "fe80::1@eth0",
		"::ffff:192.0.2.10":              "write it as 192.0.2.10",
	} {
		_, err := Parse(s)
		if err == nil || !strings.Contains(err.Error(), cure) || !strings.Contains(err.Error(), `--vip "`+s+`"`) {
			t.Errorf("Parse(%q): %v; want the value and %q", s, err, cure)
		}
	}
}

func TestParseAllNamesDuplicatesAndAllErrors(t *testing.T) {
	if got, err := ParseAll([]string{"192.0.2.10", "192.0.2.11,via=10.0.0.11"}); err != nil || len(got) != 2 {
		t.Fatalf("two VIPs: %v, %v", got, err)
	}
	_, err := ParseAll([]string{"192.0.2.10@eth0", "192.0.2.11,via=192.0.2.10", "nonsense", "192.0.2.10"})
	for _, part := range []string{
		`--vip "192.0.2.11,via=192.0.2.10": 192.0.2.10 is already in --vip "192.0.2.10@eth0"`,
		`--vip "nonsense"`,
		`--vip "192.0.2.10": 192.0.2.10 is already`,
	} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%v lacks %q", err, part)
		}
	}
}

func TestResolve(t *testing.T) {
	p := netip.MustParsePrefix
	host := []Interface{
		{"lo", []netip.Prefix{p("127.0.0.1/8")}},
		{"eth0", []netip.Prefix{p("192.0.2.1/24"), p("192.0.2.10/32")}},
		{"eth1", []netip.Prefix{p("10.0.0.1/8")}},
		{"eth2", []netip.Prefix{p("10.1.0.1/16")}},
		{"eth3", []netip.Prefix{p("10.1.0.2/16")}},
		{"bare", nil},
	}
	for s, want := range map[string]string{
		"192.0.2.10":               "192.0.2.10@eth0",
		"192.0.2.10,via=10.9.0.10": "192.0.2.10@eth0,via=10.9.0.10@eth1",
		"198.51.100.1@bare":        "198.51.100.1@bare",
		"10.1.0.9@eth3":            "10.1.0.9@eth3",
	} {
		v, err := Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Resolve(v, host)
		if err != nil || got.String() != want {
			t.Errorf("Resolve(%s) = %s, %v; want %s", s, got, err, want)
		}
	}
	for s, parts := range map[string][]string{
		"198.51.100.1":              {"no interface of this host", "eth0 192.0.2.1/24", "bare", "198.51.100.1@INTERFACE"},
		"10.1.0.9":                  {"eth2 and eth3", "10.1.0.9@eth2"},
		"192.0.2.10@eth9":           {"no interface eth9", "it has lo"},
		"192.0.2.1":                 {"this host's own address on eth0"},
		"192.0.2.0":                 {"the network's address"},
		"192.0.2.255@bare":          {"the broadcast address"},
		"192.0.2.10,via=172.16.0.1": {"via: 172.16.0.1 lies in the subnet of no interface"},
	} {
		v, err := Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		_, err = Resolve(v, host)
		for _, part := range parts {
			if err == nil || !strings.Contains(err.Error(), part) {
				t.Errorf("Resolve(%s): %v; want %q", s, err, part)
			}
		}
	}
}

func TestAnnounceAt(t *testing.T) {
	last := -time.Second
	for n := range 20 {
		at := AnnounceAt(n)
		if at <= last || at-last > Repeat {
			t.Errorf("announcement %d at %s follows one at %s", n, at, last)
		}
		last = at
	}
	if AnnounceAt(0) != 0 || AnnounceAt(7) != 65*time.Second {
		t.Errorf("first at %s, eighth at %s", AnnounceAt(0), AnnounceAt(7))
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"192.0.2.10", "192.0.2.10@eth0", "192.0.2.10@eth0,via=10.0.0.10@eth1", "2001:db8::10@e", "fe80::1%e", ",via=@", "::ffff:1.2.3.4"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		v, err := Parse(s)
		if err != nil {
			if v != (VIP{}) {
				t.Fatalf("Parse(%q) gave %+v beside an error", s, v)
			}
			return
		}
		again, err := Parse(v.String())
		if err != nil || again != v {
			t.Fatalf("%q reads as %+v, written %q, read again %+v, %v", s, v, v, again, err)
		}
	})
}
