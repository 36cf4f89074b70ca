package vxlan

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/e2e/netns"
	"github.com/sallyport/sallyport/tunnel"
)

var (
	local = netip.MustParseAddr("192.0.2.1")
	vipA  = netip.MustParseAddr("192.0.2.10")
	vipB  = netip.MustParseAddr("192.0.2.11")
)

// shell runs commands of one line each; the test's namespace is the thread's.
func shell(t *testing.T, script string) string {
	t.Helper()
	out, err := exec.Command("sh", "-ec", script).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}

// host moves the test into a namespace with an underlay eth0 that has local.
func host(t *testing.T) {
	t.Helper()
	netns.Test(t)
	shell(t, `ip link add eth0 type veth peer name peer0; ip link set peer0 up; ip link set eth0 up
ip addr add 192.0.2.1/24 dev eth0`)
	// The kernel tells of a carrier when it comes to it, behind whoever else holds the lock
	// of all interfaces: that is not to come in between a test's own changes.
	for _, link := range []string{"eth0", "peer0"} {
		for !strings.Contains(shell(t, "ip -o link show dev "+link), "state UP") {
			<-time.After(time.Millisecond)
		}
	}
}

func applier(t *testing.T, cfg tunnel.Config) *Applier {
	t.Helper()
	a, err := New(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
	return a
}

func apply(t *testing.T, a *Applier, plan tunnel.Plan) {
	t.Helper()
	if err := a.Apply(context.Background(), plan); err != nil {
		t.Fatal(err)
	}
}

// writes are the messages that f sends to change something.
func writes(a *Applier, f func()) int {
	before := a.conn.writes
	f()
	return a.conn.writes - before
}

func up(t *testing.T, cfg tunnel.Config, vips ...netip.Addr) tunnel.Plan {
	t.Helper()
	var ends []tunnel.Remote
	for _, v := range vips {
		ends = append(ends, tunnel.Remote{VIP: v, Inside: v})
	}
	plan, err := cfg.Up(local, ends)
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

// pods spreads n pods over a few nodes.
func pods(n int) map[netip.Addr]netip.Addr {
	nodeOf := make(map[netip.Addr]netip.Addr, n)
	for i := range n {
		nodeOf[netip.AddrFrom4([4]byte{10, 244, byte(i >> 8), byte(i)})] = netip.AddrFrom4([4]byte{192, 0, 2, byte(1 + i%5)})
	}
	return nodeOf
}

// state is what the user would look at, sorted.
func state(t *testing.T) string {
	t.Helper()
	lines := strings.Split(shell(t, `ip rule; ip -6 rule; ip route show table all; ip -6 route show table all; ip -d link; ip addr`), "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func TestApplyMakesWhatTheScriptMakes(t *testing.T) {
	host(t)
	cfg := tunnel.DefaultConfig()
	a := applier(t, cfg)
	plan := up(t, cfg, vipA)
	apply(t, a, plan)
	table := plan.Rules[0].Table

	dev := shell(t, `ip -d link show sally0; ip addr show sally0`)
	for _, want := range []string{"mtu 1464", "external", "gpe", "nolearning", "dstport 4793", ",UP", "addrgenmode none", "inet 192.0.2.1/32", "noprefixroute"} {
		if !strings.Contains(dev, want) {
			t.Errorf("device lacks %q:\n%s", want, dev)
		}
	}
	if got := strings.TrimSpace(shell(t, `cat /proc/sys/net/ipv4/conf/sally0/rp_filter`)); got != "2" {
		t.Errorf("rp_filter is %s", got)
	}
	routes := shell(t, fmt.Sprintf("ip -d route show table %d", table))
	want := "unicast default  encap ip id 51 src 192.0.2.1 dst 192.0.2.10 ttl 0 tos 0 dev sally0 proto 83 scope link \nthrow 192.0.2.10 proto 83 scope global \n"
	if routes != want {
		t.Errorf("routes are\n%swant\n%s", routes, want)
	}
	rules := shell(t, "ip -d rule show pref 95")
	if want := fmt.Sprintf("95:\tfrom all fwmark %#x/0x1f00 lookup %d proto 83\n", plan.Rules[0].Value, table); rules != want {
		t.Errorf("rules are %q, want %q", rules, want)
	}
}

func TestApplyAgainSendsNothing(t *testing.T) {
	host(t)
	cfg := tunnel.DefaultConfig()
	a := applier(t, cfg)
	for _, plan := range []tunnel.Plan{up(t, cfg, vipA, vipB), cfg.Downward(local, maps.All(pods(300)))} {
		if n := writes(a, func() { apply(t, a, plan) }); n == 0 {
			t.Error("the first Apply sent nothing")
		}
		if n := writes(a, func() { apply(t, a, plan) }); n != 0 {
			t.Errorf("the second Apply sent %d messages", n)
		}
	}
	nodeOf := pods(300)
	nodeOf[netip.MustParseAddr("10.244.0.7")] = netip.MustParseAddr("192.0.2.200")
	if n := writes(a, func() { apply(t, a, cfg.Downward(local, maps.All(nodeOf))) }); n != 1 {
		t.Errorf("one pod that moved took %d messages", n)
	}
}
