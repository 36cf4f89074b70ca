package sockops

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/sallyport/sallyport/e2e/netns"
	nf "github.com/sallyport/sallyport/netfilter"
	"github.com/sallyport/sallyport/steer"
)

// world is a network in which nobody answers: what leaves by eth0 is seen on far.
type world struct {
	t      *testing.T
	cgroup string
}

const network = `ip link add eth0 type veth peer name far; sysctl -qw net.ipv6.conf.far.disable_ipv6=1 net.ipv6.conf.eth0.accept_dad=0
ip link set eth0 up; ip link set far up
ip addr add 10.9.0.1/24 dev eth0; ip addr add 10.9.0.2/24 dev eth0; ip addr add 2001:db8:9::1/64 dev eth0 nodad
ip route add default via 10.9.0.254; ip neigh add 10.9.0.254 lladdr 02:00:00:00:00:01 dev eth0
ip route add default via 2001:db8:9::fe; ip neigh add 2001:db8:9::fe lladdr 02:00:00:00:00:01 dev eth0`

func newWorld(t *testing.T) world {
	netns.Test(t)
	if out, err := exec.Command("sh", "-ec", network).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	root, err := hierarchy("/sys/fs/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	w := world{t: t, cgroup: filepath.Join(root, fmt.Sprintf("sally-test-%d", os.Getpid()))}
	if err := os.Mkdir(w.cgroup, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(w.cgroup); err != nil {
			t.Errorf("something of the control group is left: %v", err)
		}
	})
	return w
}

// partnerIsHere gives this host the partner's address too.
func (w world) partnerIsHere() {
	w.t.Helper()
	if out, err := exec.Command("ip", "addr", "add", "203.0.113.5/32", "dev", "lo").CombinedOutput(); err != nil {
		w.t.Fatalf("%v: %s", err, out)
	}
}

func (w world) attach(first time.Duration) *Program {
	w.t.Helper()
	p, err := Attach(w.cgroup, first)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = p.Close() })
	return p
}

func port(text string) netip.AddrPort { return netip.MustParseAddrPort(text) }

// oneRoute selects 10.9.0.1 and its IPv6 address for TCP port 443 of a partner, and
// 10.9.0.2 for another partner.
func oneRoute() steer.Retries {
	https := []nf.Ports{{First: 443, Last: 443}, {First: 8000, Last: 8100}}
	return steer.Retries{
		Classes: map[netip.Addr]int{
			netip.MustParseAddr("10.9.0.1"): 0, netip.MustParseAddr("2001:db8:9::1"): 0, netip.MustParseAddr("10.9.0.2"): 1,
		},
		Destinations: map[steer.Destination][]nf.Ports{
			{Class: 0, Prefix: netip.MustParsePrefix("203.0.113.0/29")}:  https,
			{Class: 0, Prefix: netip.MustParsePrefix("2001:db8:5::/64")}: https,
			{Class: 1, Prefix: netip.MustParsePrefix("198.51.100.0/24")}: {nf.EveryPort},
		},
	}
}

// ordinaryRetries is what the kernel gives.
func ordinaryRetries(t *testing.T) int {
	text, err := os.ReadFile("/proc/sys/net/ipv4/tcp_syn_retries")
	if err != nil {
		t.Fatal(err)
	}
	var n int
	if _, err := fmt.Sscan(string(text), &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// That the program took a connection is seen in its number of retries, at once.
func TestOnlyConnectionsOfRoutesAreTouched(t *testing.T) {
	w := newWorld(t)
	p := w.attach(100 * time.Millisecond)
	if err := p.Apply(oneRoute()); err != nil {
		t.Fatal(err)
	}
	cases := []struct {
		what    string
		outside bool
		dial    dial
		taken   bool
	}{
		{what: "a pod to its partner", dial: dial{From: port("10.9.0.1:1"), To: port("203.0.113.5:443")}, taken: true},
		{what: "the last port of a range", dial: dial{From: port("10.9.0.1:2"), To: port("203.0.113.5:8100")}, taken: true},
		{what: "a port behind it", dial: dial{From: port("10.9.0.1:3"), To: port("203.0.113.5:8101")}},
		{what: "a port between ranges", dial: dial{From: port("10.9.0.1:4"), To: port("203.0.113.5:444")}},
		{what: "a destination outside", dial: dial{From: port("10.9.0.1:5"), To: port("203.0.113.9:443")}},
		{what: "another class's destination", dial: dial{From: port("10.9.0.1:6"), To: port("198.51.100.7:443")}},
		{what: "that class itself", dial: dial{From: port("10.9.0.2:7"), To: port("198.51.100.7:1")}, taken: true},
		{what: "an IPv6 socket with IPv4 addresses", dial: dial{From: port("10.9.0.1:8"), To: port("203.0.113.5:443"), Six: true}, taken: true},
		{what: "IPv6", dial: dial{From: port("[2001:db8:9::1]:9"), To: port("[2001:db8:5::5]:443"), Six: true}, taken: true},
		{what: "IPv6 to elsewhere", dial: dial{From: port("[2001:db8:9::1]:10"), To: port("[2001:db8:6::5]:443"), Six: true}},
		{what: "a process outside", outside: true, dial: dial{From: port("10.9.0.1:11"), To: port("203.0.113.5:443")}},
	}
	ordinary, takenOnes := ordinaryRetries(t), uint64(0)
	for _, c := range cases {
		cgroup, want := w.cgroup, ordinary
		if c.outside {
			cgroup = ""
		}
		if c.taken {
			want += 4 // of 100 ms: 4 doublings more than 1 s
			takenOnes++
		}
		if got := w.client(cgroup, c.dial)()[0].Retries; got != want {
			t.Errorf("%s: %d retries, want %d", c.what, got, want)
		}
	}
	if counts, err := p.Counts(); err != nil || counts != (Counts{Sooner: takenOnes}) {
		t.Errorf("counts %+v, %v, want %d sooner and none refused", counts, err, takenOnes)
	}
}

func TestTheMapsFollow(t *testing.T) {
	w := newWorld(t)
	p := w.attach(100 * time.Millisecond)
	ordinary := ordinaryRetries(t)
	d := dial{From: port("10.9.0.1:0"), To: port("203.0.113.5:443")}
	step := func(what string, r steer.Retries, taken bool) {
		t.Helper()
		if err := p.Apply(r); err != nil {
			t.Fatal(err)
		}
		if got := w.client(w.cgroup, d)()[0].Retries > ordinary; got != taken {
			t.Errorf("%s: taken %v, want %v", what, got, taken)
		}
	}
	step("nothing", steer.Retries{}, false)
	step("a route", oneRoute(), true)
	other := oneRoute()
	delete(other.Classes, netip.MustParseAddr("10.9.0.1"))
	step("without the pod", other, false)
	other = oneRoute()
	other.Destinations[steer.Destination{Prefix: netip.MustParsePrefix("203.0.113.0/29")}] = []nf.Ports{{First: 80, Last: 80}}
	step("another port", other, false)
	step("the route again", oneRoute(), true)
	step("nothing again", steer.Retries{}, false)
}

// A connection that was quick to try is no quicker to think a segment lost.
func TestAnEstablishedConnectionKeepsItsTimeout(t *testing.T) {
	w := newWorld(t)
	p := w.attach(Shortest)
	w.partnerIsHere()
	w.client("", dial{From: port("203.0.113.5:443"), Listen: true})()
	d := dial{From: port("10.9.0.1:0"), To: port("203.0.113.5:443")}
	before := w.client(w.cgroup, d)()[0]
	if err := p.Apply(oneRoute()); err != nil {
		t.Fatal(err)
	}
	after := w.client(w.cgroup, d)()[0]
	if after.Retries == before.Retries {
		t.Fatal("the program did not take the connection")
	}
	const rtoMin = 200_000 // TCP_RTO_MIN, include/net/tcp.h, in µs
	if before.RTO < rtoMin || after.RTO < rtoMin {
		t.Errorf("retransmission timeout %d µs, without the program %d µs: want no less than %d", after.RTO, before.RTO, rtoMin)
	}
}

// The pod is the server, and its client has the address and port of a partner.
func TestServersAreLeftAlone(t *testing.T) {
	w := newWorld(t)
	p := w.attach(100 * time.Millisecond)
	if err := p.Apply(oneRoute()); err != nil {
		t.Fatal(err)
	}
	w.partnerIsHere()
	w.client(w.cgroup, dial{From: port("10.9.0.1:9"), Listen: true})()
	if b := w.client("", dial{From: port("203.0.113.5:443"), To: port("10.9.0.1:9")})()[0]; b.RTO == 0 {
		t.Fatal("the connection is not established")
	}
	if counts, err := p.Counts(); err != nil || counts != (Counts{}) {
		t.Errorf("counts %+v, %v: want none", counts, err)
	}
}

func TestNothingStaysBehind(t *testing.T) {
	w := newWorld(t)
	p := w.attach(100 * time.Millisecond)
	attached := func() int {
		t.Helper()
		dir, err := os.Open(w.cgroup)
		if err != nil {
			t.Fatal(err)
		}
		defer dir.Close()
		r, err := link.QueryPrograms(link.QueryOptions{Target: int(dir.Fd()), Attach: ebpf.AttachCGroupSockOps})
		if err != nil {
			t.Fatal(err)
		}
		return len(r.Programs)
	}
	if n := attached(); n != 1 {
		t.Fatalf("%d programs attached, want 1", n)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if n := attached(); n != 0 {
		t.Errorf("%d programs still attached", n)
	}
}

func TestWhatIsMissingIsNamed(t *testing.T) {
	for first, want := range map[time.Duration]string{
		Shortest - 1: "choose between 50ms and 1s, or 0 for none", Longest + 1: "choose between", -1: "choose between",
	} {
		if _, err := Attach("/sys/fs/cgroup", first); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("--syn-retry %v: %v, want %q", first, err, want)
		}
	}
	if _, err := Attach(t.TempDir(), Shortest); err == nil || !strings.Contains(err.Error(), "no cgroup v2 is mounted there; give the folder") {
		t.Errorf("a folder that is none: %v", err)
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root, to run without rights")
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), clientEnv+"=attach")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("it needs the capabilities BPF and NET_ADMIN")) {
		t.Errorf("without rights: %v %s", err, out)
	}
}
