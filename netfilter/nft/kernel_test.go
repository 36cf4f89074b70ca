package nft

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/sallyport/sallyport/e2e/netns"
	"github.com/sallyport/sallyport/gateway"
	nf "github.com/sallyport/sallyport/netfilter"
	"github.com/sallyport/sallyport/snat"
	"github.com/sallyport/sallyport/steer"
	"github.com/sallyport/sallyport/tunnel"
)

// now is the kernel's rule generation, which grows with every transaction.
func now(t interface{ Fatal(...any) }) uint32 {
	id, err := generation()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func nft(t interface{ Fatal(...any) }, args ...string) string {
	out, err := exec.Command("nft", args...).CombinedOutput()
	if err != nil {
		t.Fatal(fmt.Errorf("nft %s: %w: %s", strings.Join(args, " "), err, out))
	}
	return string(out)
}

func applier(t *testing.T) *Applier {
	t.Helper()
	a, err := New(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// realTables are those of an agent and a gateway that share a host.
func realTables(t *testing.T) []nf.Table {
	t.Helper()
	addr := netip.MustParseAddr
	plan := gateway.Plan{
		Routes: []gateway.PlannedRoute{
			{Name: "payments", ID: 7, VIP: addr("192.0.2.10"), Destinations: []gateway.Destination{{
				CIDR: netip.MustParsePrefix("203.0.113.0/24"), Except: []netip.Prefix{netip.MustParsePrefix("203.0.113.9/32")},
				Ports: []gateway.Port{{Protocol: gateway.TCP, First: 443, Last: 444}}}}},
			{Name: "all", ID: 8, VIP: addr("192.0.2.11"), Destinations: []gateway.Destination{{CIDR: netip.MustParsePrefix("0.0.0.0/0")}}},
		},
		Pods:  []gateway.PlannedPod{{Addr: addr("10.244.1.10"), Routes: []int{0}}, {Addr: addr("10.244.1.11"), Routes: []int{0, 1}}},
		Peers: []netip.Addr{addr("192.0.2.1")},
	}
	ends := []tunnel.Remote{{VIP: addr("192.0.2.10"), Inside: addr("192.0.2.10")}, {VIP: addr("192.0.2.11"), Inside: addr("192.0.2.11")}}
	cfg := tunnel.DefaultConfig()
	node, err := steer.Table(cfg, plan, gateway.Hold{}, ends)
	if err != nil {
		t.Fatal(err)
	}
	gw, err := snat.Table(snat.Config{Tunnel: cfg, Zone: 7, NodePorts: nf.Ports{First: 30000, Last: 32767}}, plan, ends)
	if err != nil {
		t.Fatal(err)
	}
	return []nf.Table{node, gw}
}

func TestApplyWithNothingToDoWritesNothing(t *testing.T) {
	netns.Test(t)
	a, ctx := applier(t), context.Background()
	tables := realTables(t)
	six := nf.Table{Name: steer.TableName, IPv6: true, Counters: []string{"drop"}, Sets: []nf.Set{{Name: "vips", Addrs: []netip.Addr{netip.MustParseAddr("2001:db8::10")}}},
		Chains: []nf.Chain{
			{Name: "keep", Hook: nf.PostroutingNAT, Rules: []nf.Rule{{Action: nf.KeepSource{}}}},
			{Name: "steer", Hook: nf.PreroutingMangle, Rules: []nf.Rule{
				{Match: nf.Match{NotSrcSet: "vips", Protocol: nf.Protocols{"icmpv6"}}, Count: "drop", Action: nf.Goto{Chain: "to-2001:db8::10"}},
			}},
			{Name: "to-2001:db8::10", Rules: []nf.Rule{{Action: nf.SetMark{Value: 1, Mask: 0xffffffff}}}},
		}}
	tables = append(tables, six)
	for _, table := range tables {
		if err := a.Apply(ctx, table); err != nil {
			t.Fatal(err)
		}
	}
	before := now(t)
	for _, table := range tables {
		if err := a.Apply(ctx, table); err != nil {
			t.Fatal(err)
		}
	}
	if after := now(t); after != before {
		t.Errorf("applying again made %d transactions", after-before)
	}
}

// TestApplyRepairs lets another hand at the table and expects it as it was.
func TestApplyRepairs(t *testing.T) {
	netns.Test(t)
	a, ctx := applier(t), context.Background()
	table := realTables(t)[0]
	table.Counters = append(table.Counters, "spare")
	apply := func() {
		t.Helper()
		if err := a.Apply(ctx, table); err != nil {
			t.Fatal(err)
		}
	}
	apply()
	whole := nft(t, "-s", "list", "ruleset")
	for _, tamper := range []string{
		"delete table ip sally_node",
		"flush table ip sally_node",
		"flush chain ip sally_node _steer",
		"insert rule ip sally_node _steer accept",
		"add rule ip sally_node _forward drop comment \"foreign\"",
		"flush map ip sally_node routes-sources",
		"delete element ip sally_node _peers { 192.0.2.1 }",
		"add element ip sally_node _peers { 192.0.2.99 }",
		"add element ip sally_node routes-sources { 10.244.9.9 : 0:1 }",
		"add element ip sally_node routes-hosts { 0:77 . 1.2.3.4 : drop }",
		"add chain ip sally_node strange ; add rule ip sally_node strange accept ; add chain ip sally_node stranger ; add rule ip sally_node stranger jump strange",
		"add set ip sally_node strange { type ipv4_addr ; }",
		"add counter ip sally_node strange",
		"add table ip sally_node { flags dormant ; }",
		"flush chain ip sally_node _forward ; delete chain ip sally_node _forward ; add chain ip sally_node _forward { type filter hook output priority 7 ; }",
		"flush chain ip sally_node tunnel-out ; flush chain ip sally_node _forward ; delete set ip sally_node _remotes ; add set ip sally_node _remotes { type ipv4_addr ; flags interval ; }",
		"flush chain ip sally_node _forward ; delete chain ip sally_node _forward",
		"add chain ip sally_node _forward { policy drop ; }",
	} {
		nft(t, tamper)
		if nft(t, "-s", "list", "ruleset") == whole {
			t.Fatalf("%s changes nothing", tamper)
		}
		apply()
		if got := nft(t, "-s", "list", "ruleset"); sortedLines(got) != sortedLines(whole) {
			t.Errorf("after %s:\n%s\nwant:\n%s", tamper, got, whole)
		}
	}
}

// TestCountersSurviveARebuild lets another change what makes the whole table be
// replaced, and expects the readings to go on.
func TestCountersSurviveARebuild(t *testing.T) {
	netns.Test(t)
	a, ctx := applier(t), context.Background()
	table := nf.Table{Name: "sally_count", Chains: []nf.Chain{{Name: "in", Hook: nf.InputFilter, Rules: []nf.Rule{{Count: "packets"}}}}}
	if err := a.Apply(ctx, table); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("udp", "127.0.0.1:9")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("?")); err != nil {
		t.Fatal(err)
	}
	before, err := a.Counters(ctx, table.Name)
	for err == nil && before["packets"].Packets == 0 {
		before, err = a.Counters(ctx, table.Name)
	}
	nft(t, "add chain ip sally_count _in { policy drop ; }") // and so nothing is counted meanwhile
	if err := errors.Join(err, a.Apply(ctx, table)); err != nil {
		t.Fatal(err)
	}
	after, err := a.Counters(ctx, table.Name)
	if err != nil || after["packets"].Packets < before["packets"].Packets {
		t.Errorf("packets were %d and are %d: %v", before["packets"].Packets, after["packets"].Packets, err)
	}
}

// TestNumbersStay adds, replaces and removes sources and expects that classes keep
// their numbers, on which thousands of elements may hang.
func TestNumbersStay(t *testing.T) {
	netns.Test(t)
	a, ctx := applier(t), context.Background()
	source := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}) }
	target := func(i int) []nf.Target {
		return []nf.Target{{CIDR: netip.PrefixFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(i)}), 32), Value: 0x100}}
	}
	apply := func(sources map[netip.Addr]int, classes ...[]nf.Target) elements {
		t.Helper()
		err := a.Apply(ctx, nf.Table{Name: "sally_class", Classifiers: []nf.Classifier{{Name: "routes", Sources: nf.SourcesOf(sources), Classes: classes}},
			Chains: []nf.Chain{{Name: "steer", Hook: nf.PreroutingMangle, Rules: []nf.Rule{{Action: nf.Classify{By: "routes"}}}}}})
		if err != nil {
			t.Fatal(err)
		}
		have, _, err := read(ipv4, "sally_class")
		if err != nil {
			t.Fatal(err)
		}
		return have.elements["routes-hosts"]
	}
	first := apply(map[netip.Addr]int{source(5): 0, source(6): 1}, target(1), target(2))
	// A new first source with a class of its own moves the indexes of all others.
	second := apply(map[netip.Addr]int{source(4): 0, source(5): 1, source(6): 2}, target(0), target(1), target(2))
	// One class has other sources than before, another finds one thing more.
	third := apply(map[netip.Addr]int{source(7): 0, source(6): 1}, target(0), append(target(2), target(4)...))
	for _, e := range first {
		if _, kept := second.find(e.key); !kept {
			t.Errorf("element %s was renumbered", hostMark.text(ipv4, e.key))
		}
	}
	kept := 0
	for _, e := range second {
		if _, there := third.find(e.key); there {
			kept++
		}
	}
	if kept != 2 || len(third) != 3 {
		t.Errorf("of %d elements %d were kept, want 2 of 3", len(third), kept)
	}
}

// sortedLines compares listings whose objects were made in another order.
func sortedLines(s string) string {
	lines := strings.Split(s, "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// TestApplyFromAnywhere walks between tables at random: where it came from must
// leave no trace, and no step may be refused by nft or the kernel.
func TestApplyFromAnywhere(t *testing.T) {
	netns.Test(t)
	a, ctx := applier(t), context.Background()
	prefix := rapid.SampledFrom([]string{"203.0.113.0/24", "203.0.113.0/25", "203.0.113.5/32", "203.0.113.6/32", "198.51.100.0/30", "0.0.0.0/0"})
	target := rapid.Custom(func(t *rapid.T) nf.Target {
		out := nf.Target{CIDR: netip.MustParsePrefix(prefix.Draw(t, "cidr")), Value: uint32(rapid.IntRange(1, 3).Draw(t, "way")) << 8}
		if rapid.Bool().Draw(t, "except") {
			out.Except = []netip.Prefix{netip.MustParsePrefix(prefix.Draw(t, "except"))}
		}
		if rapid.Bool().Draw(t, "ports") {
			first := rapid.Uint16Range(1, 4).Draw(t, "first")
			out.Ports = []nf.ProtocolPorts{{Protocol: rapid.SampledFrom([]uint8{6, 17}).Draw(t, "protocol"), Ports: nf.Ports{First: first, Last: first + rapid.Uint16Range(0, 3).Draw(t, "more")}}}
		}
		return out
	})
	rapid.Check(t, func(t *rapid.T) {
		c := nf.Classifier{Name: "routes"}
		c.Classes = rapid.SliceOfN(rapid.SliceOfN(target, 0, 4), 1, 4).Draw(t, "classes")
		for i := range 6 {
			if class := rapid.IntRange(-1, len(c.Classes)-1).Draw(t, "class"); class >= 0 {
				c.Sources = append(c.Sources, nf.Source{Addr: netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), Class: class})
			}
		}
		mark := rapid.Bool().Draw(t, "mark")
		way := nf.Classify{By: "routes"}
		table := nf.Table{Name: "sally_walk", Classifiers: []nf.Classifier{c}}
		names := map[uint32]string{}
		for i := range 3 {
			v := uint32(i+1) << 8
			names[v] = fmt.Sprintf("route_%d", rapid.IntRange(i*10, i*10+1).Draw(t, "counter"))
			if !mark {
				if way.To == nil {
					way.To = map[uint32]string{}
				}
				way.To[v] = fmt.Sprintf("to-%d-%d", i, rapid.IntRange(0, 1).Draw(t, "chain"))
				table.Chains = append(table.Chains, nf.Chain{Name: way.To[v], Rules: []nf.Rule{{Action: nf.SetMark{Value: v, Mask: 0xff00}}}})
			}
		}
		sending := nf.Rule{Action: way}
		switch rapid.SampledFrom([]string{"here", "in a chain of its own", "nowhere"}).Draw(t, "looked up") {
		case "in a chain of its own":
			table.Chains = append(table.Chains, nf.Chain{Name: "apart", Rules: []nf.Rule{sending}})
			sending = nf.Rule{Match: nf.Match{SrcNet: netip.MustParsePrefix("10.0.0.0/8")}, Action: nf.Goto{Chain: "apart"}}
		case "nowhere":
			table.Chains, table.Classifiers, sending = nil, nil, nf.Rule{Action: nf.Return{}}
		}
		hook := rapid.SampledFrom([]nf.Hook{nf.PreroutingMangle, nf.ForwardMangle}).Draw(t, "hook")
		table.Chains = append(table.Chains, nf.Chain{Name: "steer", Hook: hook, Early: rapid.Bool().Draw(t, "early"), Rules: []nf.Rule{
			sending, {Action: nf.CountConnMark{Mask: 0xff00, Names: names}},
		}})
		if err := a.Apply(ctx, table); err != nil {
			t.Fatal(err)
		}
		before := now(t)
		if err := a.Apply(ctx, table); err != nil {
			t.Fatal(err)
		}
		if now(t) != before {
			t.Fatal("applied again, it was written again")
		}
		fresh := table
		fresh.Name = "sally_fresh"
		if err := errors.Join(a.Remove(ctx, fresh.Name), a.Apply(ctx, fresh)); err != nil {
			t.Fatal(err)
		}
		got, want := nft(t, "-s", "-t", "list", "table", "ip", table.Name), nft(t, "-s", "-t", "list", "table", "ip", fresh.Name)
		if sortedLines(got) != sortedLines(strings.ReplaceAll(want, fresh.Name, table.Name)) {
			t.Fatalf("walked to:\n%s\nmade at once:\n%s", got, want)
		}
	})
}
