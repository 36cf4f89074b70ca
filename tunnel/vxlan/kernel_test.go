package vxlan

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/e2e/netns"
	"github.com/sallyport/sallyport/tunnel"
)

// foreign is what others may have around, some of it in our very tables.
const foreign = `ip route add 198.51.100.0/24 via 192.0.2.77
ip route add table 5301 10.9.0.0/16 via 192.0.2.77
ip route add table 5331 throw 10.9.1.0/24 proto static
ip route add table 5331 10.244.0.1 via 192.0.2.77 metric 9
ip route add table 4242 default via 192.0.2.77
ip rule add pref 95 fwmark 0x1/0x1 lookup 4242
ip rule add pref 95 fwmark 0x1f00/0x1f00 lookup 5331
ip rule add pref 94 from 10.0.0.0/8 lookup 5331
ip rule add pref 96 to 10.0.0.0/8 lookup 5301 proto static
ip -6 rule add pref 95 fwmark 0x1/0x1 lookup 4242
ip link add other0 type vxlan id 7 dstport 4789 dev eth0
ip link add sallybr type bridge
ip addr add 10.7.0.1/24 dev sallybr`

func TestCleanupLeavesNoTrace(t *testing.T) {
	host(t)
	shell(t, foreign)
	before := state(t)
	cfg := tunnel.DefaultConfig()
	a := applier(t, cfg)
	apply(t, a, up(t, cfg, vipA, vipB))
	apply(t, a, cfg.Downward(local, maps.All(pods(400))))
	// What other versions and configurations left.
	shell(t, `ip link add sallyold type vxlan id 9 dstport 4799
ip rule add pref 7 fwmark 0x5 lookup 77 proto 83; ip rule add pref 7 lookup 77 proto 83; ip -6 rule add pref 7 fwmark 0x5 lookup 77 proto 83
ip route add table 77 throw 10.0.0.0/8 proto 83; ip -6 route add table 77 2001:db8::/32 dev lo proto 83
ip route add 198.51.100.128/25 via 192.0.2.77 proto 83`)
	if state(t) == before {
		t.Fatal("nothing to clean up")
	}
	if err := Cleanup(t.Context(), slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	if after := state(t); after != before {
		t.Errorf("Cleanup left a trace. Before:\n%s\nafter:\n%s", before, after)
	}
	if err := Cleanup(t.Context(), slog.New(slog.DiscardHandler)); err != nil {
		t.Errorf("a second Cleanup: %v", err)
	}
}

func TestForeignIsNotTouched(t *testing.T) {
	host(t)
	shell(t, foreign)
	const look = "ip rule; ip -6 rule; ip route show table all; ip addr show dev eth0; ip -d link show other0"
	before := shell(t, look)
	cfg := tunnel.DefaultConfig()
	a := applier(t, cfg)
	apply(t, a, up(t, cfg, vipA, vipB))
	apply(t, a, cfg.Downward(local, maps.All(pods(50))))
	apply(t, a, up(t, cfg))
	apply(t, a, cfg.Downward(local, nil))
	for _, p := range []tunnel.Plan{up(t, cfg), cfg.Downward(local, nil)} {
		if err := a.Remove(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	shell(t, "ip link del sally0")
	if after := shell(t, look); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

// A foreign route in the very place of one of ours is named and left; all others
// are served.
func TestForeignRouteInOurPlace(t *testing.T) {
	host(t)
	shell(t, "ip route add table 5331 10.244.0.3 via 192.0.2.77")
	cfg := tunnel.DefaultConfig()
	a := applier(t, cfg)
	err := a.Apply(t.Context(), cfg.Downward(local, maps.All(pods(5))))
	if err == nil || !strings.Contains(err.Error(), "10.244.0.3/32") || !strings.Contains(err.Error(), "--table-base") {
		t.Errorf("error is %v", err)
	}
	got := shell(t, "ip route show table 5331")
	if !strings.Contains(got, "10.244.0.3 via 192.0.2.77") || strings.Count(got, "encap") != 4 {
		t.Errorf("table is\n%s", got)
	}
	if rules := shell(t, "ip rule"); !strings.Contains(rules, "5331") {
		t.Errorf("rules are\n%s", rules)
	}
}

func TestRepairAfterTampering(t *testing.T) {
	for _, harm := range []string{
		"ip link del sally0",
		"ip link set sally0 down",
		"ip link set sally0 mtu 1400",
		"ip addr del 192.0.2.1/32 dev sally0",
		"ip addr add 10.1.2.3/32 dev sally0",
		"ip addr add 192.0.2.1/24 dev sally0",
		"sysctl -qw net.ipv4.conf.sally0.rp_filter=1",
		"ip rule flush; ip rule add pref 32766 lookup main proto kernel; ip rule add pref 32767 lookup default proto kernel",
		"ip rule del pref 95",
		"ip rule add pref 95 fwmark 0x100/0x100 lookup 5331 proto 83",
		"ip rule add pref 90 iif lo fwmark 0x1f00/0x1f00 lookup 5331 proto 83",
		"ip rule add pref 90 lookup 5331 suppress_prefixlength 0 proto 83",
		"ip rule add pref 95 lookup 5331 proto 83", // removing it hits ours
		"ip route add 10.244.0.2 dev sally0 table 5331 proto 83 metric 3",
		"ip route append 10.244.0.2 dev sally0 table 5331 proto 83", // removing it hits ours
		"ip route flush table 5331",
		"ip route del 10.244.0.2 table 5331",
		"ip route add 10.244.9.9 encap ip id 51 src 192.0.2.1 dst 192.0.2.3 dev sally0 table 5331 proto 83",
		"ip route replace 10.244.0.2 encap ip id 51 dst 192.0.2.99 dev sally0 table 5331 proto 83",
		"ip route replace 10.244.0.2 encap ip id 52 dst 192.0.2.3 dev sally0 table 5331 proto 83",
		"ip route replace 10.244.0.2 encap ip id 51 dst 192.0.2.3 ttl 3 dev sally0 table 5331 proto 83",
		"ip route replace 10.244.0.2 via 192.0.2.9 table 5331 proto 83",
		"ip route replace throw 10.244.0.2 table 5331 proto 83",
		"ip route replace blackhole 10.244.0.2 table 5331 proto 83",
		"ip route prepend 10.244.0.2 via 192.0.2.9 metric 5 table 5331 proto 83",
		"ip route append 10.244.0.2 via 192.0.2.9 table 5331 proto 83",
		"ip route prepend 10.244.0.2 via 192.0.2.9 table 5331 proto 83",
		"ip route prepend 10.244.0.2 via 192.0.2.9 table 5331 proto 83; ip route del 10.244.0.2 encap ip id 51 src 192.0.2.1 dst 192.0.2.3 dev sally0 table 5331",
		"ip route append 10.244.0.2 via 192.0.2.9 table 5331 proto 83; ip route del 10.244.0.2 encap ip id 51 src 192.0.2.1 dst 192.0.2.3 dev sally0 table 5331; ip route append 10.244.0.2 via 192.0.2.8 table 5331 proto 83",
		"ip link del sally0; ip link add sally0 type vxlan id 51 dstport 4793 dev eth0",
		"ip link del sally0; ip link add sally0 type vxlan external dstport 4793",
		"ip link del sally0; ip link add sally0 type vxlan external gpe dstport 4000; ip link set sally0 up",
	} {
		t.Run(harm, func(t *testing.T) {
			host(t)
			cfg := tunnel.DefaultConfig()
			a := applier(t, cfg)
			plan := cfg.Downward(local, maps.All(pods(5)))
			apply(t, a, plan)
			look := "ip -d rule; ip -d route show table 5331; ip addr show dev sally0 | grep -v valid | sed 's/^[0-9]*//'; cat /proc/sys/net/ipv4/conf/sally0/rp_filter; ip -d link show sally0 | sed 's/^[0-9]*//'"
			before := shell(t, look)
			shell(t, harm)
			if n := writes(a, func() { apply(t, a, plan) }); n == 0 {
				t.Error("nothing was repaired")
			}
			if after := shell(t, look); after != before {
				t.Errorf("before:\n%s\nafter:\n%s", before, after)
			}
			if n := writes(a, func() { apply(t, a, plan) }); n != 0 {
				t.Errorf("after the repair %d messages were sent", n)
			}
		})
	}
}

// The agent and the gateway of one host share the device.
func TestTwoProgramsShareTheDevice(t *testing.T) {
	host(t)
	cfg := tunnel.DefaultConfig()
	agent, gate := applier(t, cfg), applier(t, cfg)
	upward, down := up(t, cfg, vipA), cfg.Downward(local, maps.All(pods(20)))
	apply(t, agent, upward)
	apply(t, gate, down)
	if n := writes(agent, func() { apply(t, agent, upward) }); n != 0 {
		t.Errorf("the gateway's Apply cost the agent %d messages", n)
	}
	shell(t, "ip link del sally0")
	apply(t, gate, down)
	apply(t, agent, upward)
	if n := writes(gate, func() { apply(t, gate, down) }); n != 0 {
		t.Errorf("the agent's repair cost the gateway %d messages", n)
	}
	if got := strings.Count(shell(t, "ip route show table all"), "encap"); got != 21 {
		t.Errorf("%d routes into the tunnel, want 21", got)
	}
	if err := gate.Remove(t.Context(), down); err != nil {
		t.Fatal(err)
	}
	if n := writes(agent, func() { apply(t, agent, upward) }); n != 0 {
		t.Errorf("the gateway's removal cost the agent %d messages", n)
	}
	if got := shell(t, "ip rule; ip route show table all"); strings.Contains(got, "5331") {
		t.Errorf("the gateway's tables are still there:\n%s", got)
	}
}

// Both start at once on a fresh host, again and again.
func TestTwoProgramsRace(t *testing.T) {
	host(t)
	cfg := tunnel.DefaultConfig()
	agent, gate := applier(t, cfg), applier(t, cfg)
	upward, down := up(t, cfg, vipA), cfg.Downward(local, maps.All(pods(20)))
	for range 20 {
		errs := make(chan error)
		go func() { errs <- agent.Apply(context.Background(), upward) }()
		go func() { errs <- gate.Apply(context.Background(), down) }()
		if err := errors.Join(<-errs, <-errs); err != nil {
			t.Fatal(err)
		}
		shell(t, "ip link del sally0")
	}
}

func TestNewTunnelEndMovesTheRoutes(t *testing.T) {
	host(t)
	shell(t, "ip addr add 192.0.2.3/24 dev eth0")
	cfg := tunnel.DefaultConfig()
	a := applier(t, cfg)
	plan := cfg.Downward(local, maps.All(pods(10)))
	apply(t, a, plan)
	shell(t, "ip addr del 192.0.2.1/24 dev eth0; ip addr add 192.0.2.3/24 dev eth0 2>/dev/null || true")
	plan.Local = netip.MustParseAddr("192.0.2.3")
	if n := writes(a, func() { apply(t, a, plan) }); n != 12 {
		t.Errorf("%d messages, want one address in and one out, and 10 routes with the new source", n)
	}
	if got := shell(t, "ip -4 addr show dev sally0"); strings.Contains(got, "192.0.2.1/") || !strings.Contains(got, "192.0.2.3/32") {
		t.Errorf("addresses:\n%s", got)
	}
	if n := writes(a, func() { apply(t, a, plan) }); n != 0 {
		t.Errorf("then %d messages", n)
	}
}

func TestMTUFollowsTheUnderlay(t *testing.T) {
	host(t)
	cfg := tunnel.DefaultConfig()
	a := applier(t, cfg)
	for _, mtu := range []int{1500, 9000, 1400, 1300} {
		shell(t, fmt.Sprintf("ip link set eth0 mtu %d", mtu))
		apply(t, a, cfg.Downward(local, nil))
		if dev, err := a.conn.link("sally0", 0); err != nil || dev.mtu != mtu-tunnel.Overhead {
			t.Errorf("underlay %d, tunnel %d, %v", mtu, dev.mtu, err)
		}
	}
	problems := fmt.Sprint(a.Check())
	if !strings.Contains(problems, "eth0") || !strings.Contains(problems, "MTU of 1264") {
		t.Errorf("problems are %s", problems)
	}
	shell(t, "ip addr add 192.0.2.200/32 dev lo")
	plan := cfg.Downward(netip.MustParseAddr("192.0.2.200"), nil)
	apply(t, a, plan)
	if dev, err := a.conn.link("sally0", 0); err != nil || dev.mtu != 1300-tunnel.Overhead {
		t.Errorf("with the tunnel end on lo the MTU is %d, %v", dev.mtu, err)
	}
}

func TestCheck(t *testing.T) {
	for _, c := range []struct{ harm, want string }{
		{"sysctl -qw net.ipv4.ip_forward=0", "net.ipv4.ip_forward: is 0"},
		{"sysctl -qw net.ipv4.conf.eth0.forwarding=0", "net.ipv4.conf.eth0.forwarding: is 0"},
		{"sysctl -qw net.ipv4.conf.sally0.forwarding=0", "net.ipv4.conf.sally0.forwarding: is 0"},
		{"sysctl -qw net.ipv4.conf.sally0.rp_filter=0", "net.ipv4.conf.sally0.rp_filter: is 0"},
		{"ip addr del 192.0.2.1/24 dev eth0", "no interface of this host has address 192.0.2.1"},
		{"sysctl -qw net.ipv4.conf.all.rp_filter=1", ""},
		{"sysctl -qw net.ipv4.conf.eth0.rp_filter=1", ""},
		{"ip link del sally0", ""},
	} {
		t.Run(c.harm, func(t *testing.T) {
			host(t)
			shell(t, "sysctl -qw net.ipv4.ip_forward=1")
			cfg := tunnel.DefaultConfig()
			a := applier(t, cfg)
			apply(t, a, cfg.Downward(local, nil))
			if p := a.Check(); len(p) != 0 {
				t.Fatalf("a healthy host has problems: %v", p)
			}
			shell(t, c.harm)
			var got []string
			for _, p := range a.Check() {
				got = append(got, p.Object+": "+p.Message)
			}
			if c.want == "" && len(got) > 0 || c.want != "" && (len(got) != 1 || !strings.Contains(got[0], c.want)) {
				t.Errorf("problems are %q, want %q", got, c.want)
			}
		})
	}
}

func TestErrorsNameObjectAndCure(t *testing.T) {
	cfg := tunnel.DefaultConfig()
	down := cfg.Downward(local, maps.All(pods(3)))
	six := netip.MustParseAddr("2001:db8::1")
	for _, c := range []struct {
		name, before string
		plan         tunnel.Plan
		want         []string
	}{
		{"no such address", "", cfg.Downward(netip.MustParseAddr("192.0.2.9"), nil), []string{"192.0.2.9", "192.0.2.1 on eth0", "--node-ip"}},
		{"address on our device only", "ip link add sallyold type vxlan external gpe dstport 1; ip addr add 192.0.2.9/32 dev sallyold", cfg.Downward(netip.MustParseAddr("192.0.2.9"), nil), []string{"no interface"}},
		{"no address", "", tunnel.Plan{}, []string{"--node-ip"}},
		{"IPv6 end", "", cfg.Downward(six, nil), []string{"2001:db8::1", "IPv6 is not there yet"}},
		{"port of another GPE device", "ip link add other0 type vxlan external gpe dstport 4793", down, []string{"4793", "VXLAN device other0", "--tunnel-port"}},
		{"port of a plain device", "ip link add other0 type vxlan id 3 dstport 4793; ip link set other0 up", down, []string{"4793", "VXLAN device other0", "--tunnel-port"}},
		{"name of a bridge", "ip link add sally0 type bridge", down, []string{"sally0", "bridge", "not ours"}},
		{"route outside of the tables", "", tunnel.Plan{Local: local, FirstTable: 5300, LastTable: 5301, Routes: []tunnel.Route{{Table: 254, Dst: netip.MustParsePrefix("0.0.0.0/0"), Remote: vipA}}}, []string{"table 254", "outside of tables 5300 to 5301"}},
		{"rule outside of the tables", "", tunnel.Plan{Local: local, FirstTable: 5300, LastTable: 5301, Rules: []tunnel.Rule{{Value: 1, Mask: 1, Table: 254, Priority: 9}}}, []string{"lookup 254", "outside"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			host(t)
			shell(t, c.before)
			a := applier(t, cfg)
			err := a.Apply(t.Context(), c.plan)
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error lacks %q: %v", want, err)
				}
			}
			if got := shell(t, "ip route show; ip link"); strings.Contains(got, "encap") {
				t.Errorf("a route went into the main table:\n%s", got)
			}
		})
	}
}

// One bad route does not keep the others out.
func TestBadRoutesDoNotStopTheOthers(t *testing.T) {
	host(t)
	cfg := tunnel.DefaultConfig()
	a := applier(t, cfg)
	nodeOf := pods(3)
	nodeOf[netip.MustParseAddr("2001:db8::2")] = local
	nodeOf[netip.MustParseAddr("10.244.7.7")] = netip.MustParseAddr("2001:db8::1")
	err := a.Apply(t.Context(), cfg.Downward(local, maps.All(nodeOf)))
	if err == nil || strings.Count(err.Error(), "IPv6 is not there yet") != 2 {
		t.Errorf("error is %v", err)
	}
	if got := strings.Count(shell(t, "ip route show table 5331"), "encap"); got != 3 {
		t.Errorf("%d routes, want 3", got)
	}
}

// What the kernel refuses is named, and the batch goes on behind it.
func TestRefusedMessagesAreNamed(t *testing.T) {
	host(t)
	cfg := tunnel.DefaultConfig()
	a := applier(t, cfg)
	apply(t, a, cfg.Downward(local, nil))
	oif, err := a.device(t.Context(), local)
	if err != nil {
		t.Fatal(err)
	}
	var reqs []request
	for i := range 3*batch + 5 {
		index := oif
		if i%batch == 7 {
			index = 9999
		}
		r := tunnel.Route{Table: 5331, Dst: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 32), Remote: vipA}
		reqs = append(reqs, putRoute(r, end{51, index, local}, false))
	}
	err = a.conn.change(t.Context(), reqs)
	if !errors.Is(err, unix.ENODEV) {
		t.Errorf("error is %v", err)
	}
	for _, want := range []string{"10.0.0.7/32", "10.0.0.135/32", "10.0.1.7/32"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error lacks %s: %v", want, err)
		}
	}
	list, err := a.conn.routes(unix.AF_INET, 5331, Protocol, 0)
	if err != nil || len(list) != 3*batch+5-3 {
		t.Errorf("%d routes, %v", len(list), err)
	}
}

// In a container without privilege /proc/sys cannot be written.
func TestReadOnlyProcSys(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root for network namespaces")
	}
	ns, err := netns.New(fmt.Sprintf("spt-vx%d-ro", os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ns.Close(); err != nil {
			t.Error(err)
		}
	})
	if out, err := ns.Run("sh", "-ec", `sysctl -qw net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.default.rp_filter=1
ip link add eth0 type veth peer name peer0; ip addr add 192.0.2.1/24 dev eth0; ip link set eth0 up`); err != nil {
		t.Fatal(err, out)
	}
	cfg := tunnel.DefaultConfig()
	err = ns.Do(func() error { // on a thread that ends with it, private mounts included
		if err := errors.Join(
			unix.Unshare(unix.CLONE_FS|unix.CLONE_NEWNS),
			unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
			unix.Mount("/proc/sys", "/proc/sys", "", unix.MS_BIND, ""),
			unix.Mount("", "/proc/sys", "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""),
		); err != nil {
			return err
		}
		if err := os.WriteFile("/proc/sys/net/ipv4/conf/all/rp_filter", []byte("1"), 0); !errors.Is(err, unix.EROFS) {
			return fmt.Errorf("/proc/sys is writable: %v", err)
		}
		a, err := New(cfg, slog.New(slog.DiscardHandler))
		if err != nil {
			return err
		}
		err = a.Apply(t.Context(), cfg.Downward(local, nil))
		return errors.Join(err, a.Close())
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ns.Run("cat", "/proc/sys/net/ipv4/conf/sally0/rp_filter"); err != nil || strings.TrimSpace(got) != "2" {
		t.Errorf("rp_filter is %s, %v", got, err)
	}
}

// Above manyTables the tables are listed in another way.
func TestWideMarkField(t *testing.T) {
	host(t)
	cfg := tunnel.DefaultConfig()
	cfg.Marks.Mask = 0xffff0000
	a := applier(t, cfg)
	plan := up(t, cfg, vipA, vipB)
	apply(t, a, plan)
	if n := writes(a, func() { apply(t, a, plan) }); n != 0 {
		t.Errorf("the second Apply sent %d messages", n)
	}
	if n := writes(a, func() { apply(t, a, up(t, cfg, vipA)) }); n != 3 {
		t.Errorf("a VIP that goes took %d messages, want a rule and two routes", n)
	}
}

func TestRebuildIsLogged(t *testing.T) {
	host(t)
	shell(t, "ip link add sally0 type vxlan id 3 dstport 4000 dev eth0")
	var log bytes.Buffer
	cfg := tunnel.DefaultConfig()
	a := applier(t, cfg)
	a.log = slog.New(slog.NewTextHandler(&log, nil))
	apply(t, a, cfg.Downward(local, nil))
	for _, want := range []string{"rebuilt", "sally0", "port=4000", "wanted_port=4793"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("log lacks %q:\n%s", want, log.String())
		}
	}
}
