package iptables

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	vnetns "github.com/vishvananda/netns"

	"github.com/sallyport/sallyport/e2e/netns"
	"github.com/sallyport/sallyport/gateway"
	nf "github.com/sallyport/sallyport/netfilter"
	"github.com/sallyport/sallyport/snat"
	"github.com/sallyport/sallyport/steer"
	"github.com/sallyport/sallyport/tunnel"
)

// inBoth runs a test in a fresh namespace for each variant.
func inBoth(t *testing.T, test func(*testing.T, *Applier)) {
	for _, v := range []Variant{NFT, Legacy} {
		t.Run(string(v), func(t *testing.T) {
			netns.Test(t)
			a, err := New(v, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			test(t, a)
		})
	}
}

func sh(t *testing.T, command string) string {
	t.Helper()
	out, err := exec.Command("sh", "-c", command).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", command, err, out)
	}
	return string(out)
}

func apply(t *testing.T, a *Applier, table nf.Table) {
	t.Helper()
	if err := a.Apply(context.Background(), table); err != nil {
		t.Fatal(err)
	}
}

// settled checks that the kernel has exactly the table, by reading it, and that
// there is nothing left to write.
func settled(t *testing.T, a *Applier, table nf.Table) {
	t.Helper()
	rules, sets, err := a.read(context.Background(), table.IPv6)
	if err != nil {
		t.Fatal(err)
	}
	p, err := render(table, generation(sets, table.IPv6))
	if err != nil {
		t.Fatal(err)
	}
	for name, chains := range p.chains {
		for chain, want := range chains {
			var have, wanted []string
			for _, l := range rules[name].chains[chain] {
				have = append(have, l.comment)
			}
			for _, r := range want {
				wanted = append(wanted, r.comment())
			}
			if !slices.Equal(have, wanted) {
				t.Fatalf("%s %s has %v, want %v", name, chain, have, wanted)
			}
		}
	}
	prefix := setsOf(table.Name, table.IPv6)
	held := 0
	for name := range sets {
		if strings.HasPrefix(name, prefix) {
			held++
		}
	}
	if held != len(p.sets) {
		t.Fatalf("%d sets, want %d", held, len(p.sets))
	}
	for _, s := range p.sets {
		if sets[s.name] == nil || len(sets[s.name].members) != len(s.members()) {
			t.Fatalf("set %s is %v, want %v", s.name, sets[s.name], s.members())
		}
	}
	grow, shrink := p.setChanges(sets)
	if left := grow + p.changes(rules, a.variant) + shrink; left != "" {
		t.Fatalf("still to be written:\n%s", left)
	}
}

func TestEveryRuleIsTaken(t *testing.T) {
	inBoth(t, func(t *testing.T, a *Applier) {
		apply(t, a, every())
		settled(t, a, every())
	})
}

// TestRandomWalk goes from any table to any other, so that no transition is special.
func TestRandomWalk(t *testing.T) {
	const steps = 40
	inBoth(t, func(t *testing.T, a *Applier) {
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		r := rand.New(rand.NewPCG(seed, 1))
		for range steps {
			table := wander(r)
			apply(t, a, table)
			settled(t, a, table)
		}
	})
}

func wander(r *rand.Rand) nf.Table {
	t := nf.Table{Name: "sally_walk"}
	c := nf.Classifier{Name: "routes"}
	sources := map[netip.Addr]int{}
	for range 1 + r.IntN(3) {
		var class []nf.Target
		for range r.IntN(4) {
			class = append(class, nf.Target{CIDR: netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(10 + r.IntN(4))}), 8), Value: uint32(1 + r.IntN(3))})
		}
		c.Classes = append(c.Classes, class)
	}
	for range r.IntN(150) {
		sources[netip.AddrFrom4([4]byte{10, 244, byte(r.IntN(2)), byte(r.IntN(200))})] = r.IntN(len(c.Classes))
	}
	c.Sources = nf.SourcesOf(sources)
	t.Classifiers = []nf.Classifier{c}
	to := map[uint32]string{1: "one", 2: "two", 3: "three"}
	for _, name := range []string{"one", "two", "three"} {
		t.Chains = append(t.Chains, nf.Chain{Name: name, Rules: []nf.Rule{{Action: nf.SetMark{Value: 1, Mask: 1}}}})
	}
	hooks := []nf.Hook{nf.PreroutingRaw, nf.PreroutingMangle, nf.InputFilter, nf.ForwardFilter, nf.PostroutingNAT}
	r.Shuffle(len(hooks), func(i, j int) { hooks[i], hooks[j] = hooks[j], hooks[i] })
	for _, h := range hooks[:r.IntN(len(hooks)+1)] {
		chain := nf.Chain{Name: "at-" + string(h), Hook: h, Early: r.IntN(2) == 0}
		for range r.IntN(8) {
			rule := nf.Rule{Match: nf.Match{Src: netip.AddrFrom4([4]byte{192, 0, 2, byte(r.IntN(9))})}}
			if r.IntN(2) == 0 {
				rule.Count = fmt.Sprintf("n%d", r.IntN(4))
			}
			if h == nf.PreroutingMangle && r.IntN(3) == 0 {
				rule.Action = nf.Classify{By: "routes", To: to}
			}
			chain.Rules = append(chain.Rules, rule)
		}
		t.Chains = append(t.Chains, chain)
	}
	return t
}

// TestCountersNeverJumpBack counts packets while rules come, move, go and return.
func TestCountersNeverJumpBack(t *testing.T) {
	inBoth(t, func(t *testing.T, a *Applier) {
		conn, err := net.Dial("udp", "127.0.0.1:9")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		lo := nf.Rule{Match: nf.Match{Protocol: nf.Protocols{"udp"}, DstPort: 9}, Count: "seen"}
		pad := func(n byte) nf.Rule {
			return nf.Rule{Match: nf.Match{Src: netip.AddrFrom4([4]byte{192, 0, 2, n})}, Action: nf.Drop{}}
		}
		table := func(rules ...nf.Rule) nf.Table {
			return nf.Table{Name: "sally_count", Counters: []string{"seen", "never"}, Chains: []nf.Chain{{Name: "in", Hook: nf.InputFilter, Rules: rules}}}
		}
		var want uint64
		for i, step := range []struct {
			table nf.Table
			rules uint64
		}{
			{table(lo), 1},
			{table(pad(1), lo, pad(2)), 1},
			{table(lo, pad(1), lo), 2},
			{table(pad(2), pad(1), lo), 1},
			{table(pad(3)), 0},
			{table(pad(3), lo, lo, lo), 3},
			{table(), 0},
			{table(lo), 1},
		} {
			apply(t, a, step.table)
			settled(t, a, step.table)
			for range 5 {
				_, _ = conn.Write([]byte("?")) // refused by ICMP now and then, counted all the same
				_, _ = conn.Write([]byte("?"))
			}
			counts, err := a.Counters(context.Background(), "sally_count")
			if err != nil {
				t.Fatal(err)
			}
			if counts["seen"].Packets < want || (step.rules > 0 && counts["seen"].Packets == want) || (step.rules == 0 && counts["seen"].Packets != want) {
				t.Errorf("step %d: %d packets after %d, with %d rules", i, counts["seen"].Packets, want, step.rules)
			}
			if n, listed := counts["never"]; !listed || n.Packets != 0 {
				t.Errorf("step %d: a counter that never counted is %v, %t", i, n, listed)
			}
			want = counts["seen"].Packets
		}
	})
}

// TestJumpsStayAtTheHead puts other rules before ours, and another table of ours
// beside it.
func TestJumpsStayAtTheHead(t *testing.T) {
	inBoth(t, func(t *testing.T, a *Applier) {
		table := func(name string, early bool) nf.Table {
			return nf.Table{Name: name, Chains: []nf.Chain{{Name: "src", Hook: nf.PostroutingNAT, Early: early, Rules: []nf.Rule{{Match: nf.Match{Out: "x0"}, Action: nf.KeepSource{}}}}}}
		}
		head := func() string {
			var order []string
			for line := range strings.Lines(sh(t, string(a.variant)+" -t nat -S POSTROUTING")) {
				if f := strings.Fields(line); f[0] == "-A" {
					order = append(order, f[len(f)-1])
				}
			}
			return strings.Join(order, " ")
		}
		sh(t, string(a.variant)+" -t nat -A POSTROUTING -j MASQUERADE")
		apply(t, a, table("sally_z", false))
		apply(t, a, table("sally_b", true))
		apply(t, a, table("sally_a", false))
		const want = "SALLY-B-SRC SALLY-A-SRC SALLY-Z-SRC MASQUERADE"
		if got := head(); got != want {
			t.Errorf("order %s, want %s", got, want)
		}
		sh(t, string(a.variant)+" -t nat -I POSTROUTING 1 -j ACCEPT")
		sh(t, string(a.variant)+" -t nat -I POSTROUTING 3 -s 192.0.2.0/24 -j RETURN")
		apply(t, a, table("sally_z", false))
		if got := head(); got != "SALLY-B-SRC SALLY-A-SRC SALLY-Z-SRC ACCEPT RETURN MASQUERADE" {
			t.Errorf("order %s after another's insert", got)
		}
		for _, n := range []string{"sally_a", "sally_b", "sally_z"} {
			settled(t, a, table(n, n == "sally_b"))
		}
		if err := a.Remove(context.Background(), "sally_z"); err != nil {
			t.Fatal(err)
		}
		if got := head(); got != "SALLY-B-SRC SALLY-A-SRC ACCEPT RETURN MASQUERADE" {
			t.Errorf("order %s after a removal", got)
		}
	})
}

// TestTwoProgramsAtOnce starts agent and gateway at the same moment, again and again:
// each reads the kernel before the other has written.
func TestTwoProgramsAtOnce(t *testing.T) {
	inBoth(t, func(t *testing.T, a *Applier) {
		here, err := vnetns.Get()
		if err != nil {
			t.Fatal(err)
		}
		defer here.Close()
		table := func(name string, early bool) nf.Table {
			return nf.Table{Name: name, Chains: []nf.Chain{{Name: "pre", Hook: nf.PreroutingMangle, Early: early, Rules: []nf.Rule{{Match: nf.Match{In: "x0"}, Action: nf.Return{}}}}}}
		}
		tables := []nf.Table{table("sally_a", false), table("sally_b", true)}
		for round := range 10 {
			errs := make(chan error)
			for _, tb := range tables {
				go func() {
					runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
					if err := vnetns.Set(here); err != nil {
						errs <- err
						return
					}
					one, err := New(a.variant, slog.New(slog.DiscardHandler))
					if err == nil {
						err = one.Apply(context.Background(), tb)
					}
					errs <- err
				}()
			}
			if err := errors.Join(<-errs, <-errs); err != nil {
				t.Fatal(err)
			}
			got := sh(t, string(a.variant)+" -t mangle -S PREROUTING | grep -o 'SALLY-[AB]' | xargs")
			if strings.TrimSpace(got) != "SALLY-B SALLY-A" {
				t.Fatalf("round %d: order %s", round, got)
			}
			for _, tb := range tables {
				if err := a.Remove(context.Background(), tb.Name); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}

// TestManyChangesMakeANewSet checks that the rules change over to it in one step,
// and that few changes keep it.
func TestManyChangesMakeANewSet(t *testing.T) {
	inBoth(t, func(t *testing.T, a *Applier) {
		with := func(first, n int) nf.Table {
			s := nf.Set{Name: "peers"}
			for i := first; i < first+n; i++ {
				s.Addrs = append(s.Addrs, netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}))
			}
			return nf.Table{Name: "sally_set", Sets: []nf.Set{s}, Chains: []nf.Chain{{Name: "in", Hook: nf.InputFilter, Rules: []nf.Rule{{Match: nf.Match{NotSrcSet: "peers"}}}}}}
		}
		for _, step := range []struct {
			first, n int
			want     string
		}{{0, 1000, ".a"}, {1, 1000, ".a"}, {400, 1000, ".b"}, {401, 990, ".b"}, {5000, 10, ".a"}} {
			apply(t, a, with(step.first, step.n))
			settled(t, a, with(step.first, step.n))
			if got := strings.TrimSpace(sh(t, "ipset list -name")); got != "sally_set4:peers"+step.want {
				t.Errorf("sets %q, want generation %s", got, step.want)
			}
		}
	})
}

// TestCleanupLeavesNothing includes the kernel tables that iptables-nft makes for
// the first rule, unless another has come to use them.
func TestCleanupLeavesNothing(t *testing.T) {
	inBoth(t, func(t *testing.T, a *Applier) {
		state := func() string {
			return sh(t, "nft list ruleset; ipset list; iptables-legacy-save | grep -v '^#' | sed 's/\\[.*//'; ip6tables-legacy-save | grep -v '^#' | sed 's/\\[.*//'")
		}
		if a.variant == Legacy { // its tables stay until the module goes
			sh(t, "for t in raw mangle nat filter; do iptables-legacy -t $t -S; ip6tables-legacy -t $t -S; done")
		}
		before := state()
		six := nf.Table{Name: "sally_every", IPv6: true, Chains: []nf.Chain{{Name: "c", Hook: nf.ForwardMangle, Rules: []nf.Rule{{Action: nf.Drop{}}}}}}
		apply(t, a, every())
		apply(t, a, six)
		if err := a.Remove(context.Background(), "sally_every"); err != nil {
			t.Fatal(err)
		}
		if after := state(); after != before {
			t.Errorf("after Remove:\n%s\nbefore:\n%s", after, before)
		}
		apply(t, a, every())
		apply(t, a, six)
		other, err := New(a.variant.other(), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		if err := other.Cleanup(context.Background()); err != nil {
			t.Fatal(err)
		}
		if after := state(); after != before {
			t.Errorf("after Cleanup:\n%s\nbefore:\n%s", after, before)
		}

		apply(t, a, every())
		sh(t, string(a.variant)+" -t mangle -N KUBE-KUBELET-CANARY; "+string(a.variant)+" -t raw -A PREROUTING -i x0 -j ACCEPT; "+string(a.variant)+" -t filter -P INPUT DROP")
		if err := a.Cleanup(context.Background()); err != nil {
			t.Fatal(err)
		}
		left := sh(t, string(a.variant)+"-save")
		if strings.Contains(strings.ToLower(left), "sally") || !strings.Contains(left, "KUBE-KUBELET-CANARY") || !strings.Contains(left, "-i x0") || !strings.Contains(left, ":INPUT DROP") {
			t.Errorf("left after Cleanup:\n%s", left)
		}
	})
}

// TestLockIsNamed holds a lock file of its own: the host's is everybody's.
func TestLockIsNamed(t *testing.T) {
	netns.Test(t)
	file := filepath.Join(t.TempDir(), "lock")
	t.Setenv("XTABLES_LOCKFILE", file)
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	restore := Legacy.tool(false, "-restore")
	program, err := exec.LookPath(restore)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir() // where each run of it leaves a line
	script := fmt.Sprintf("#!/bin/sh\necho >>%s/runs\nexec %s \"$@\"\n", dir, program)
	if err := os.WriteFile(filepath.Join(dir, restore), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+string(filepath.ListSeparator)+os.Getenv("PATH"))
	a, err := New(Legacy, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Apply(context.Background(), every()); !errors.Is(err, ErrLocked) {
		t.Errorf("got %v, want that the lock is held", err)
	}
	if runs, err := os.ReadFile(filepath.Join(dir, "runs")); len(runs) != 1 {
		t.Errorf("it was waited for %d times, want once: %v", len(runs), err)
	}
}

// TestRefusedLineIsNamed uses a chain that somebody made in our name, too.
func TestRefusedLineIsNamed(t *testing.T) {
	inBoth(t, func(t *testing.T, a *Applier) {
		_, err := run(context.Background(), "*nat\n:SALLY-X - [0:0]\n-A SALLY-X -m nosuchmatch -j DROP\nCOMMIT\n", a.variant.tool(false, "-restore"), "--noflush")
		if err == nil || !strings.Contains(err.Error(), "nosuchmatch") {
			t.Errorf("got %v, want the line", err)
		}
		_, err = run(context.Background(), "create sally-x hash:net,net\n", "ipset", "restore")
		if err == nil || !strings.Contains(err.Error(), "ip_set_hash_netnet") {
			t.Errorf("got %v, want the module", err)
		}
	})
}

func TestMissingProgramIsNamed(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := New(NFT, slog.New(slog.DiscardHandler))
	if !errors.Is(err, ErrNotInstalled) || !strings.Contains(err.Error(), "iptables-nft-restore") || !strings.Contains(err.Error(), "ipset") {
		t.Errorf("got %v, want each missing program", err)
	}
}

// TestProgramsTables applies what the agent and the gateway want, side by side.
func TestProgramsTables(t *testing.T) {
	vip := netip.MustParseAddr("192.0.2.10")
	plan := gateway.Plan{
		VIPs: []netip.Addr{vip}, Peers: []netip.Addr{netip.MustParseAddr("192.0.2.1")},
		Routes: []gateway.PlannedRoute{{Name: "payments", ID: 7, VIP: vip, Destinations: []gateway.Destination{{CIDR: netip.MustParsePrefix("203.0.113.0/24")}}}},
		Pods:   []gateway.PlannedPod{{Addr: netip.MustParseAddr("10.244.1.10"), Routes: []int{0}}},
	}
	ends := []tunnel.Remote{{VIP: vip, Inside: vip}}
	node, err := steer.Table(tunnel.DefaultConfig(), plan, gateway.Hold{}, ends)
	if err != nil {
		t.Fatal(err)
	}
	gw, err := snat.Table(snat.Config{Tunnel: tunnel.DefaultConfig(), Zone: 7, NodePorts: nf.Ports{First: 30000, Last: 32767}}, plan, ends)
	if err != nil {
		t.Fatal(err)
	}
	inBoth(t, func(t *testing.T, a *Applier) {
		apply(t, a, node)
		apply(t, a, gw)
		settled(t, a, node)
		settled(t, a, gw)
	})
}
