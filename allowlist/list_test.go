package allowlist

import (
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func addrs(texts ...string) (all []netip.Addr) {
	for _, t := range texts {
		all = append(all, netip.MustParseAddr(t))
	}
	return all
}

// partners are two routes of one VIP, and one of another.
func partners() List {
	return List{Kind: Routes, Entries: []Entry{
		{"payments", addrs("192.0.2.10")}, {"kyc", addrs("192.0.2.10")}, {"null", addrs("2001:db8::1", "192.0.2.9")},
	}}
}

// says fails the test unless the error has each of the words; none want no error.
func says(t *testing.T, err error, words ...string) {
	t.Helper()
	if (err == nil) != (len(words) == 0) {
		t.Fatalf("error %v, want one with %q", err, words)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q has not %q", err, w)
		}
	}
}

func TestAddressesAreEachThereOnce(t *testing.T) {
	want := []Address{
		{netip.MustParseAddr("192.0.2.9"), []string{"null"}},
		{netip.MustParseAddr("192.0.2.10"), []string{"kyc", "payments"}},
		{netip.MustParseAddr("2001:db8::1"), []string{"null"}},
	}
	if got := partners().Addresses(); !reflect.DeepEqual(got, want) {
		t.Errorf("%v", got)
	}
}

func TestOnly(t *testing.T) {
	all, err := partners().Only(nil)
	if says(t, err); len(all.Entries) != 3 {
		t.Errorf("all of them: %v", all)
	}
	some, err := partners().Only([]string{"kyc"})
	if says(t, err); len(some.Entries) != 1 || some.Entries[0].Name != "kyc" {
		t.Errorf("kyc: %v", some)
	}
	some, err = partners().Only([]string{"kyc", "kyc"})
	if says(t, err); len(some.Entries) != 1 {
		t.Errorf("kyc, twice: %v", some)
	}
	some, err = partners().Only([]string{"kyc", "lost"})
	if says(t, err, "list of routes", "lost"); len(some.Entries) != 1 {
		t.Errorf("those that are there: %v", some)
	}
}

func TestWithin(t *testing.T) {
	l, err := partners().Within([]netip.Prefix{netip.MustParsePrefix("192.0.2.10/31"), netip.MustParsePrefix("10.0.0.0/8")})
	says(t, err, "2001:db8::1 of null", "192.0.2.9 of null", "--within")
	if got := l.Addresses(); len(got) != 1 || got[0].Addr != netip.MustParseAddr("192.0.2.10") {
		t.Errorf("%v", got)
	}
	whole, err := partners().Within(nil)
	if says(t, err); len(whole.Addresses()) != 3 {
		t.Errorf("without ranges: %v", whole)
	}
}

func TestBelieve(t *testing.T) {
	old, other := List{Kind: Routes, Entries: []Entry{{"old", addrs("192.0.2.1")}}}, partners()
	doubtful, empty, meant, bare := partners(), List{Kind: Routes}, List{Kind: Routes, Empty: true}, List{Kind: Routes, Entries: []Entry{{Name: "a"}}}
	doubtful.Doubt = "the API server is away"
	nodes := List{Kind: Nodes, Entries: other.Entries}
	for _, c := range []struct {
		name   string
		before *List
		came   List
		want   *List
		err    []string
	}{
		{"the first", nil, other, &other, nil},
		{"another", &old, other, &other, nil},
		{"a doubtful one when there is none", nil, doubtful, &doubtful, nil},
		{"a doubtful one", &old, doubtful, &old, []string{"may be old", "API server is away"}},
		{"a sure one after a doubtful one", &doubtful, other, &other, nil},
		{"an empty one", &old, empty, &old, []string{"no address", "meant"}},
		{"an empty one as the first", nil, empty, nil, []string{"no address"}},
		{"entries without addresses", &old, bare, &old, []string{"no address"}},
		{"an empty one that is meant", &old, meant, &meant, nil},
		{"another kind", &old, nodes, &old, []string{"list of nodes, not of routes"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Believe(c.before, c.came)
			says(t, err, c.err...)
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("believes %v, want %v", got, c.want)
			}
		})
	}
}

func TestDecode(t *testing.T) {
	for _, l := range []List{partners(), {Kind: Nodes, Doubt: "why", Entries: []Entry{{Name: "n1"}}}, {Kind: Routes, Empty: true}} {
		got, err := Decode(Encode(l))
		says(t, err)
		if string(Encode(got)) != string(Encode(l)) || got.Doubt != l.Doubt || got.Empty != l.Empty || len(got.Entries) != len(l.Entries) {
			t.Errorf("%+v became %+v", l, got)
		}
	}
	turned := partners()
	slices.Reverse(turned.Entries)
	if string(Encode(turned)) != string(Encode(partners())) {
		t.Error("the order of what is equal shows")
	}
	sound := string(Encode(partners()))
	for _, c := range []struct {
		name, text string
		want       []string
	}{
		{"nothing", "", []string{"not a list"}},
		{"another's page", "<html>", []string{"not a list"}},
		{"null", "null", []string{"format 0"}},
		{"cut short", sound[:len(sound)-4], []string{"not a list"}},
		{"a later format", strings.Replace(sound, `"format": 1`, `"format": 2`, 1), []string{"format 2", "reads 1"}},
		{"another kind", strings.Replace(sound, "routes", "pods", 1), []string{`"pods"`}},
		{"a name with a quote", strings.Replace(sound, "kyc", `k\"c`, 1), []string{"no name"}},
		{"a name twice", strings.Replace(sound, "kyc", "null", 1), []string{"null", "twice"}},
		{"everybody", strings.Replace(sound, "192.0.2.9", "0.0.0.0", 1), []string{"null", "0.0.0.0"}},
		{"a range", strings.Replace(sound, "192.0.2.9", "192.0.2.0/24", 1), []string{"not a list"}},
		{"loopback", strings.Replace(sound, "192.0.2.9", "127.0.0.1", 1), []string{"127.0.0.1"}},
		{"mapped", strings.Replace(sound, "2001:db8::1", "::ffff:192.0.2.1", 1), []string{"::ffff:192.0.2.1"}},
		{"no address", strings.Replace(sound, "192.0.2.9", "", 1), []string{"null"}},
		{"empty and not", strings.Replace(sound, `"kind"`, `"empty": true, "kind"`, 1), []string{"says it is empty"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, err := Decode([]byte(c.text))
			says(t, err, c.want...)
			if !reflect.DeepEqual(l, List{}) {
				t.Errorf("part of it was taken: %v", l)
			}
		})
	}
}

func TestUnseal(t *testing.T) {
	sound := string(Seal(partners()))
	l, err := Unseal([]byte(sound))
	if says(t, err); string(Encode(l)) != string(Encode(partners())) {
		t.Errorf("%v", l)
	}
	for name, text := range map[string]string{
		"empty": "", "cut short": sound[:len(sound)-9], "another address": strings.Replace(sound, "192.0.2.9", "192.0.2.8", 1), "zeroes": strings.Repeat("\x00", 99),
	} {
		if l, err := Unseal([]byte(text)); err == nil || !reflect.DeepEqual(l, List{}) {
			t.Errorf("%s: %v, %v", name, l, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(Encode(partners()))
	f.Add(Encode(List{Kind: Nodes, Empty: true}))
	f.Fuzz(func(t *testing.T, text []byte) {
		l, err := Decode(text)
		if err != nil {
			if !reflect.DeepEqual(l, List{}) {
				t.Errorf("part of it was taken with %v", err)
			}
			return
		}
		again, err := Decode(Encode(l))
		if err != nil || string(Encode(again)) != string(Encode(l)) {
			t.Errorf("what was read is not read again: %v", err)
		}
		for _, format := range Formats {
			text, err := Print(l, format, Sets{})
			if (err != nil) != (l.Nothing() != nil && format != JSON) {
				t.Errorf("%s: %v", format, err)
			}
			// What a name brings must not end its line.
			if format == NFT && strings.Count(string(text), `"`)%2 != 0 {
				t.Errorf("%s", text)
			}
		}
	})
}
