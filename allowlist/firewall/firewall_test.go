package firewall_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/allowlist"
	"github.com/sallyport/sallyport/allowlist/firewall"
	"github.com/sallyport/sallyport/e2e/netns"
)

// kinds of sets, and how each is shown, made and spoilt by hand.
var kinds = map[string]struct {
	sets                     allowlist.Sets
	list, theirs, clear, odd string
}{
	"nft": {
		allowlist.Sets{Family: "inet", Table: "filter", Name: "partners"},
		"nft list set inet filter partners%d", "nft add table inet filter; nft add set inet filter partners4 '{ type ipv4_addr; }'; nft add element inet filter partners4 '{ 192.0.2.99 }'",
		"nft flush ruleset", "nft add table inet filter; nft add set inet filter partners4 '{ type inet_service; }'",
	},
	"ipset": {
		allowlist.Sets{Name: "partners"},
		"ipset list partners%d", "ipset create partners4 hash:ip; ipset add partners4 192.0.2.99",
		"ipset flush partners4; ipset flush partners6", "ipset create partners4 hash:net",
	},
}

func sh(t *testing.T, command string) string {
	t.Helper()
	out, err := exec.Command("sh", "-ec", command).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", command, err, out)
	}
	return string(out)
}

func admit(texts ...string) (all []allowlist.Address) {
	for _, t := range texts {
		all = append(all, allowlist.Address{Addr: netip.MustParseAddr(t), Names: []string{"payments"}})
	}
	return all
}

func eachKind(t *testing.T, test func(t *testing.T, kind string)) {
	for kind := range kinds {
		t.Run(kind, func(t *testing.T) {
			netns.Test(t)
			test(t, kind)
		})
	}
}

func TestTheSetsAreMadeEqualToTheList(t *testing.T) {
	eachKind(t, func(t *testing.T, kind string) {
		k := kinds[kind]
		f, err := firewall.New(k.sets, false)
		if err != nil {
			t.Fatal(err)
		}
		var many []string
		for i := range 1000 {
			many = append(many, fmt.Sprintf("10.0.%d.%d", i/250, 1+i%250))
		}
		held := map[string]bool{}
		for _, list := range [][]string{{"192.0.2.10", "2001:db8::1"}, {"192.0.2.10", "192.0.2.11"}, many, {"192.0.2.11"}, nil, {"2001:db8::2"}} {
			added, removed, err := f.Apply(t.Context(), admit(list...))
			if err != nil {
				t.Fatal(err)
			}
			for _, a := range removed {
				delete(held, a.String())
			}
			for _, a := range added {
				held[a.String()] = true
			}
			shown := sh(t, fmt.Sprintf(k.list, 4)) + sh(t, fmt.Sprintf(k.list, 6))
			if n := strings.Count(shown, "payments"); n != len(list) || len(held) != len(list) {
				t.Fatalf("%d elements, %d told of, want %d: %s", n, len(held), len(list), shown)
			}
			for _, a := range list {
				if !strings.Contains(shown, a+" comment") || !held[a] {
					t.Errorf("%s is not in it: %s", a, shown)
				}
			}
			if added, removed, err := f.Apply(t.Context(), admit(list...)); err != nil || len(added)+len(removed) > 0 {
				t.Errorf("changed again: %v %v %v", added, removed, err)
			}
		}
		sh(t, k.clear)
		if added, _, err := f.Apply(t.Context(), admit("2001:db8::2")); err != nil || len(added) != 1 {
			t.Errorf("what others took away did not come back: %v, %v", added, err)
		}
	})
}

func TestSetsOfOthersAreLeftAlone(t *testing.T) {
	eachKind(t, func(t *testing.T, kind string) {
		k := kinds[kind]
		sh(t, k.theirs)
		f, err := firewall.New(k.sets, false)
		if err != nil {
			t.Fatal(err)
		}
		// The set of the other version is not there yet: it is made all the same.
		added, _, err := f.Apply(t.Context(), admit("192.0.2.10", "2001:db8::1"))
		if err == nil || !strings.Contains(err.Error(), "partners4") || !strings.Contains(err.Error(), "--adopt") || len(added) != 1 {
			t.Errorf("%v, %v", added, err)
		}
		if four, six := sh(t, fmt.Sprintf(k.list, 4)), sh(t, fmt.Sprintf(k.list, 6)); !strings.Contains(four, "192.0.2.99") || strings.Contains(four, "192.0.2.10 ") || !strings.Contains(six, "2001:db8::1") {
			t.Errorf("%s%s", four, six)
		}
		if f, err = firewall.New(k.sets, true); err != nil {
			t.Fatal(err)
		}
		for range 2 { // it stays so
			if _, _, err := f.Apply(t.Context(), admit("192.0.2.10", "2001:db8::1")); err != nil {
				t.Fatal(err)
			}
			if four := sh(t, fmt.Sprintf(k.list, 4)); strings.Contains(four, "192.0.2.99") || !strings.Contains(four, "192.0.2.10") {
				t.Errorf("%s", four)
			}
		}
	})
}

func TestASetOfAnotherTypeIsNamed(t *testing.T) {
	eachKind(t, func(t *testing.T, kind string) {
		sh(t, kinds[kind].odd)
		f, err := firewall.New(kinds[kind].sets, true)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := f.Apply(t.Context(), admit("192.0.2.10")); err == nil || !strings.Contains(err.Error(), "partners4 holds") {
			t.Errorf("%v", err)
		}
	})
}

// A restore that ended in its middle leaves the set that was to be swapped in.
func TestALeftoverOfIPSetIsUsed(t *testing.T) {
	netns.Test(t)
	sh(t, "ipset create partners4~ hash:ip family inet comment; ipset add partners4~ 192.0.2.99 comment sallyport")
	f, err := firewall.New(kinds["ipset"].sets, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := f.Apply(t.Context(), admit("192.0.2.10")); err != nil {
		t.Fatal(err)
	}
	if names := sh(t, "ipset list -n"); strings.Contains(names, "~") {
		t.Errorf("left: %s", names)
	}
	if set := sh(t, "ipset list partners4"); strings.Contains(set, "192.0.2.99") {
		t.Errorf("%s", set)
	}
}

// What the formats print is what the programs take.
func TestThePrintedTextsAreTaken(t *testing.T) {
	netns.Test(t)
	l := allowlist.List{Kind: allowlist.Routes, Doubt: "it is\nold", Entries: []allowlist.Entry{{Name: "payments", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("2001:db8::1")}}}}
	for format, show := range map[string]string{allowlist.NFT: "nft list ruleset", allowlist.IPSet: "ipset list"} {
		sets := allowlist.DefaultNFT
		if format == allowlist.IPSet {
			sets = allowlist.DefaultIPSet
		}
		for range 2 { // twice is once
			text, err := allowlist.Print(l, format, allowlist.Sets{})
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(sets.Program()[0], sets.Program()[1:]...)
			cmd.Stdin = strings.NewReader(string(text))
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
		}
		if shown := sh(t, show); strings.Count(shown, "payments") != 2 || !strings.Contains(shown, "2001:db8::1") {
			t.Errorf("%s: %s", format, shown)
		}
	}
}

func TestWatchTellsOfWhatOthersChange(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root for a network namespace")
	}
	const tries = 60
	for name, change := range map[string]func(try int) string{
		"a table deleted":    func(try int) string { return fmt.Sprintf("delete table inet t%d", try) },
		"a set deleted":      func(try int) string { return fmt.Sprintf("delete set inet filter s%d", try) },
		"an element deleted": func(try int) string { return fmt.Sprintf("delete element inet filter partners4 { 192.0.2.%d }", try) },
		"an element added":   func(try int) string { return fmt.Sprintf("add element inet filter partners4 { 192.0.3.%d }", try) },
	} {
		t.Run(name, func(t *testing.T) {
			ns, err := netns.New(fmt.Sprintf("sally-watch-%d", os.Getpid()))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { ns.Close() })
			nft := func(command string) {
				t.Helper()
				if _, err := ns.Run("nft", command); err != nil {
					t.Fatal(err)
				}
			}
			script := "add table inet filter; add set inet filter partners4 { type ipv4_addr; };"
			for i := range tries {
				script += fmt.Sprintf("add table inet t%d; add set inet filter s%d { type ipv4_addr; }; add element inet filter partners4 { 192.0.2.%d };", i, i, i)
			}
			nft(script)
			f, err := firewall.New(kinds["nft"].sets, false)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			changed, ended := make(chan bool, tries), make(chan error, 1)
			go func() { ended <- ns.Do(func() error { return f.Watch(ctx, func() { changed <- true }) }) }()
			told := false
			for i := 0; i < tries && !told; i++ { // it may not listen yet
				nft(change(i))
				select {
				case <-changed:
					told = true
				case <-time.After(time.Second):
				}
			}
			if !told {
				t.Error("nobody was told")
			}
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
}
