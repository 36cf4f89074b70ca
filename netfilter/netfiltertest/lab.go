package netfiltertest

import (
	"context"
	"fmt"
	"maps"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport/sallyport/e2e/netns"
	"github.com/sallyport/sallyport/netfilter"
)

// The lab: pods - router - three ways out, each with a server that has the same
// addresses, so that the answer tells which way a packet went.
//
//	pod 10.244.1.10-13 ── pods0 router out0 ── out   (the main table)
//	                                   b0   ── b     (mark 0x100)
//	                                   c0   ── c     (mark 0x200)
const (
	markMask = 0x3f00
	markB    = 0x100
	markC    = 0x200
	vip      = "192.0.2.10"
	vip6     = "2001:db8:a::10"
)

var (
	ways    = []string{"out", "b", "c"}
	pods    = []string{"10.244.1.10", "10.244.1.11", "10.244.1.12", "10.244.1.13"}
	pods6   = []string{"2001:db8:f::10", "2001:db8:f::11"}
	servers = []string{"203.0.113.5", "203.0.113.9", "203.0.113.130", "198.51.100.7"}
	server6 = "2001:db8:5::5"
	ports   = []int{443, 444, 445, 8080}
)

type lab struct {
	t       *testing.T
	router  *netns.NS
	pod     *netns.NS
	far     map[string]*netns.NS
	applier Applier
}

var labs atomic.Int32

// newLab builds the network and an applier in its router.
func newLab(t *testing.T, s Suite) *lab {
	t.Helper()
	sweep(t)
	l := &lab{t: t, far: map[string]*netns.NS{}}
	id := labs.Add(1)
	namespace := func(name string) *netns.NS {
		ns, err := netns.New(fmt.Sprintf("spn-%d-%d-%s", os.Getpid(), id, name))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := ns.Close(); err != nil {
				t.Error(err)
			}
		})
		return ns
	}
	l.router, l.pod = namespace("router"), namespace("pod")
	for _, w := range ways {
		l.far[w] = namespace(w)
	}
	l.wire()
	for _, w := range ways {
		l.serve(w)
	}
	l.in(func() (err error) {
		l.applier, err = s.New()
		return err
	})
	return l
}

// sweep removes what an interrupted run left behind.
func sweep(t *testing.T) {
	entries, _ := os.ReadDir("/run/netns")
	for _, e := range entries {
		part := strings.Split(e.Name(), "-")
		if len(part) != 4 || part[0] != "spn" {
			continue
		}
		if _, err := os.Stat("/proc/" + part[1]); os.IsNotExist(err) {
			if ns, err := netns.Open(e.Name()); err == nil {
				t.Logf("removing %s, left by an earlier run: %v", e.Name(), ns.Close())
			}
		}
	}
}

func (l *lab) wire() {
	up := func(ns *netns.NS, addrs ...string) {
		lines := []string{"link set lo up"}
		for _, a := range addrs {
			if strings.Contains(a, ":") {
				a += " nodad"
			}
			lines = append(lines, "addr add "+a)
		}
		l.batch(ns, lines...)
	}
	for _, ns := range append([]*netns.NS{l.router, l.pod}, l.far["out"], l.far["b"], l.far["c"]) {
		l.run(ns, "sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0",
			"net.ipv6.conf.all.disable_ipv6=0", "net.ipv6.conf.default.accept_dad=0",
			"net.ipv4.ip_forward=1", "net.ipv4.tcp_timestamps=0", "net.ipv6.conf.all.forwarding=1")
	}
	var podAddrs []string
	for _, p := range pods {
		podAddrs = append(podAddrs, p+"/24 dev eth0")
	}
	for _, p := range pods6 {
		podAddrs = append(podAddrs, p+"/64 dev eth0")
	}
	l.batch(l.router, "link add pods0 type veth peer name eth0 netns "+l.pod.Name, "link set pods0 up")
	up(l.router, "10.244.1.1/24 dev pods0", "2001:db8:f::1/64 dev pods0")
	l.batch(l.pod, "link set eth0 up")
	up(l.pod, podAddrs...)
	l.batch(l.pod, "route add default via 10.244.1.1", "-6 route add default via 2001:db8:f::1")
	for i, w := range ways {
		far := l.far[w]
		l.batch(l.router, "link add "+w+"0 type veth peer name eth0 netns "+far.Name, "link set "+w+"0 up")
		up(l.router, fmt.Sprintf("198.18.%d.1/24 dev %s0", i, w), fmt.Sprintf("2001:db8:e%d::1/64 dev %s0", i, w))
		l.batch(far, "link set eth0 up")
		addrs := []string{fmt.Sprintf("198.18.%d.100/24 dev eth0", i), fmt.Sprintf("2001:db8:e%d::100/64 dev eth0", i), server6 + "/128 dev lo"}
		for _, s := range servers {
			addrs = append(addrs, s+"/32 dev lo")
		}
		up(far, addrs...)
		l.batch(far, fmt.Sprintf("route add default via 198.18.%d.1", i), fmt.Sprintf("-6 route add default via 2001:db8:e%d::1", i))
		table := "main"
		if i > 0 {
			table = strconv.Itoa(100 * i)
			l.batch(l.router, fmt.Sprintf("rule add fwmark %#x/%#x lookup %s prio 100", 0x100*i, markMask, table),
				fmt.Sprintf("-6 rule add fwmark %#x/%#x lookup %s prio 100", 0x100*i, markMask, table))
		}
		l.batch(l.router, fmt.Sprintf("route add default via 198.18.%d.100 table %s", i, table),
			fmt.Sprintf("-6 route add default via 2001:db8:e%d::100 table %s", i, table))
	}
}

// batch gives lines to ip(8); an -6 in front is the family.
func (l *lab) batch(ns *netns.NS, lines ...string) {
	l.t.Helper()
	for _, line := range lines {
		l.run(ns, "ip", strings.Fields(line)...)
	}
}

func (l *lab) run(ns *netns.NS, name string, args ...string) string {
	l.t.Helper()
	out, err := ns.Run(name, args...)
	if err != nil {
		l.t.Fatal(err)
	}
	return out
}

// in runs f in the router.
func (l *lab) in(f func() error) {
	l.t.Helper()
	if err := l.router.Do(f); err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) apply(table netfilter.Table) {
	l.t.Helper()
	l.in(func() error { return l.applier.Apply(context.Background(), table) })
}

// counted reads a table's counters as packets.
func (l *lab) counted(table string) map[string]uint64 {
	l.t.Helper()
	packets := map[string]uint64{}
	l.in(func() error {
		counts, err := l.applier.Counters(context.Background(), table)
		for name, c := range counts {
			packets[name] = c.Packets
		}
		return err
	})
	return packets
}

// expect waits until the counters are exactly these: a packet may still be on its
// way when its sender goes on.
func (l *lab) expect(want map[string]uint64) {
	l.t.Helper()
	var got map[string]uint64
	for end := time.Now().Add(patience); time.Now().Before(end); runtime.Gosched() {
		if got = l.counted(tableName); maps.Equal(got, want) {
			return
		}
	}
	for name := range want {
		if n, there := got[name]; !there || n != want[name] {
			l.t.Errorf("%s counted %d packets (%t), want %d", name, n, there, want[name])
		}
	}
	for name := range got {
		if _, known := want[name]; !known {
			l.t.Errorf("counter %s was not asked for", name)
		}
	}
}

// random is what ipset makes up anew for every set; members come in its order.
var random = regexp.MustCompile(` initval 0x[0-9a-f]+|Size in memory: \d+`)

// dump is everything netfilter has in the router, without what only counts.
func (l *lab) dump() string {
	l.t.Helper()
	sets := strings.Split(random.ReplaceAllString(l.run(l.router, "ipset", "list"), ""), "\n")
	slices.Sort(sets)
	all := strings.Join(sets, "\n")
	for _, cmd := range [][]string{
		{"nft", "-s", "list", "ruleset"},
		{"iptables-nft-save"}, {"iptables-legacy-save"}, {"ip6tables-nft-save"}, {"ip6tables-legacy-save"},
	} {
		for line := range strings.Lines(l.run(l.router, cmd[0], cmd[1:]...)) {
			if strings.HasPrefix(line, "#") {
				continue
			}
			if strings.HasPrefix(line, ":") {
				line, _, _ = strings.Cut(line, "[")
				line += "\n"
			}
			all += line
		}
	}
	return all
}
