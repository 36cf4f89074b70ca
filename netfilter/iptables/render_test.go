package iptables

import (
	"flag"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	nf "github.com/sallyport/sallyport/netfilter"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// every is a table with each match, each action and both kinds of classification.
func every() nf.Table {
	addr := netip.MustParseAddr
	net := netip.MustParsePrefix
	b, none := nf.Masked{Value: 0x100, Mask: 0x3f00}, nf.Masked{Mask: 0x3f00}
	tcp, udp := nf.Protocols{"tcp"}, nf.Protocols{"udp"}
	many := nf.CountConnMark{Mask: 0xffff0000, Names: map[uint32]string{}}
	for id := range uint32(20) {
		many.Names[(id*3111+1)<<16] = fmt.Sprintf("route_%d", id*3111+1)
	}
	payments := nf.Target{
		CIDR: net("203.0.113.0/24"), Except: []netip.Prefix{net("203.0.113.9/32"), net("203.0.113.128/25")}, Value: 0x100,
		Ports: []nf.ProtocolPorts{{Protocol: 6, Ports: nf.Ports{First: 443, Last: 444}}, {Protocol: 17, Ports: nf.Ports{First: 443, Last: 443}}, {Protocol: 132}},
	}
	kyc := nf.Target{CIDR: net("203.0.113.9/32"), Value: 0x200}
	world := nf.Target{CIDR: net("0.0.0.0/0"), Except: []netip.Prefix{net("10.0.0.0/8")}, Value: 0x100}
	nothing := nf.Target{CIDR: net("10.0.0.0/8"), Except: []netip.Prefix{net("0.0.0.0/0")}, Value: 0x100}
	return nf.Table{
		Name: "sally_every", Counters: []string{"stray", "seen", "strange"},
		Sets: []nf.Set{{Name: "peers", Addrs: []netip.Addr{addr("192.0.2.1"), addr("192.0.2.2")}}},
		Classifiers: []nf.Classifier{{
			Name: "routes",
			Sources: nf.SourcesOf(map[netip.Addr]int{
				addr("10.244.1.10"): 0, addr("10.244.1.11"): 1, addr("10.244.2.10"): 0, addr("10.244.2.11"): 2,
			}),
			Classes: [][]nf.Target{{payments, kyc}, {payments, nothing}, {world}},
		}},
		Chains: []nf.Chain{
			{Name: "in", Hook: nf.PreroutingRaw, Early: true, Rules: []nf.Rule{
				{Match: nf.Match{Protocol: udp, DstPort: 4793, DstLocal: true, NotSrcSet: "peers"}, Count: "strange", Action: nf.Drop{}},
				{Match: nf.Match{In: "sally0", NotIn: "eth0", Mark: &b}, Action: nf.Zone{ID: 7}},
				{Match: nf.Match{In: "eth0", NotIn: "eth0"}, Action: nf.Drop{}, Why: "never"},
			}},
			{Name: "out", Hook: nf.OutputRaw, Rules: []nf.Rule{{Match: nf.Match{DstSet: "peers"}, Action: nf.NoTrack{}}}},
			{Name: "steer", Hook: nf.PreroutingMangle, Rules: []nf.Rule{
				{Match: nf.Match{NotIn: "pods0", State: nf.Invalid, Direction: nf.Reply}, Action: nf.Return{}},
				{Match: nf.Match{Protocol: nf.Protocols{"udp", "tcp"}, SrcPorts: nf.Ports{First: 0, Last: 1023}}, Count: "seen"},
				{Match: nf.Match{NotMark: &none, NotConnMark: &b, State: nf.Established}, Action: nf.Goto{Chain: "to-192.0.2.10"}},
				{Action: nf.Classify{By: "routes"}},
				{Count: "seen", Action: nf.Classify{By: "routes", To: map[uint32]string{0x100: "to-192.0.2.10", 0x200: "to-192.0.2.110-a"}}},
				{Match: nf.Match{Unselected: "routes"}, Count: "strange", Action: nf.Drop{}},
				{Count: "stray", Why: "selected, but by no route"},
			}},
			{Name: "to-192.0.2.10", Rules: []nf.Rule{{Action: nf.SetMark(b)}, {Action: nf.SetConnMark(b)}}},
			{Name: "to-192.0.2.110-a", Rules: []nf.Rule{{Match: nf.Match{ConnMark: &b}, Action: many}}},
			{Name: "clamp", Hook: nf.ForwardMangle, Rules: []nf.Rule{{Match: nf.Match{Out: "sally0", Protocol: tcp}, Count: "seen", Action: nf.ClampMSS{}}}},
			{Name: "guard", Hook: nf.ForwardFilter, Rules: []nf.Rule{{Match: nf.Match{NotOut: "sally0", Src: addr("10.244.1.10")}, Action: nf.Drop{}, Why: `no "quotes"`}}},
			{Name: "input", Hook: nf.InputFilter, Rules: []nf.Rule{{Match: nf.Match{Dst: addr("192.0.2.10"), Protocol: nf.Protocols{"icmp"}, State: nf.New}, Action: nf.Return{}}}},
			{Name: "source", Hook: nf.PostroutingNAT, Rules: []nf.Rule{
				{Match: nf.Match{Out: "sally0"}, Action: nf.KeepSource{}},
				{Match: nf.Match{Protocol: tcp}, Action: nf.SNAT{To: addr("192.0.2.10"), Ports: nf.Ports{First: 1024, Last: 29999}}},
				{Action: nf.SNAT{To: addr("192.0.2.10")}},
			}},
		},
	}
}

// TestRenderGolden shows the rules as a reviewer would read them.
func TestRenderGolden(t *testing.T) {
	p, err := render(every(), func(set) string { return generations[0] })
	if err != nil {
		t.Fatal(err)
	}
	got := describe(p)
	file := filepath.Join("testdata", "every.golden")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; look at the difference after `go test -run Golden -update`. Now:\n%s", file, got)
	}
}

func describe(p program) string {
	var out strings.Builder
	for _, s := range p.sets {
		fmt.Fprintf(&out, "%s %s: %s\n", s.kind(p.ipv6), s.name, strings.Join(s.members(), " "))
	}
	for _, table := range commitOrder {
		if len(p.chains[table]) == 0 {
			continue
		}
		fmt.Fprintf(&out, "\n*%s\n", table)
		for _, b := range slices.Sorted(maps.Keys(p.jumps[table])) {
			for _, j := range p.jumps[table][b] {
				fmt.Fprintf(&out, "%s: %s\n", b, strings.TrimSpace(j.rule().spec+" "+j.rule().why))
			}
		}
		for _, c := range slices.Sorted(maps.Keys(p.chains[table])) {
			fmt.Fprintf(&out, "%s\n", c)
			for _, r := range p.chains[table][c] {
				out.WriteString("    " + r.spec)
				if r.count != "" {
					out.WriteString("  [" + r.count + "]")
				}
				if r.why != "" {
					out.WriteString("  # " + r.why)
				}
				out.WriteString("\n")
			}
		}
	}
	return out.String()
}

func TestNamesFitAndDiffer(t *testing.T) {
	seen := map[string]string{}
	for _, table := range []string{"sally_node", "sally_gw", "sally", "sallynode", "sally-node", "sally_NODE", "sally_0123456789", "sally0123456789a"} {
		for _, name := range []string{"steer", "STEER", "to-192.0.2.10", "to-2001:db8:1234:5678::10", "to/x", strings.Repeat("long-", 9) + "a", strings.Repeat("long-", 9) + "b", "counts"} {
			c, s := chainName(table, name, false), setName(table, false, name, false)+generations[0]
			if len(c) > maxChain || len(s) > maxSet {
				t.Errorf("%s %s: %s or %s is too long", table, name, c, s)
			}
			for _, n := range []string{c, s} {
				if other, twice := seen[n]; twice {
					t.Errorf("%s stands for %s and for %s %s", n, other, table, name)
				}
				seen[n] = table + " " + name
			}
		}
		if book := chainName(table, ledger, true); len(book) > maxChain {
			t.Errorf("%s is too long", book)
		}
	}
}

func TestRenderRefuses(t *testing.T) {
	one := func(r nf.Rule) nf.Table {
		return nf.Table{Name: "sally_x", Chains: []nf.Chain{{Name: "c", Hook: nf.PostroutingNAT, Rules: []nf.Rule{r}}}}
	}
	six := netip.MustParseAddr("2001:db8::1")
	for want, table := range map[string]nf.Table{
		"the name must be":            {Name: "sally x"},
		"cannot match it":             one(nf.Rule{Match: nf.Match{In: "eth+"}}),
		"other family":                one(nf.Rule{Match: nf.Match{Src: six}}),
		"translate to is":             one(nf.Rule{Action: nf.SNAT{To: six}}),
		"needs a protocol":            one(nf.Rule{Action: nf.SNAT{To: netip.MustParseAddr("192.0.2.1"), Ports: nf.Ports{First: 1, Last: 2}}}),
		"has no ports":                one(nf.Rule{Match: nf.Match{Protocol: nf.Protocols{"icmp"}, DstPort: 1}}),
		"raw hook only":               one(nf.Rule{Action: nf.Zone{ID: 1}}),
		"clamped of protocol tcp":     one(nf.Rule{Action: nf.ClampMSS{}}),
		`protocol "gre" is unknown`:   one(nf.Rule{Match: nf.Match{Protocol: nf.Protocols{"gre"}}}),
		`hook "somewhere" is unknown`: {Name: "sally_x", Chains: []nf.Chain{{Name: "c", Hook: "somewhere"}}},
	} {
		if _, err := render(table, func(set) string { return ".a" }); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
}
