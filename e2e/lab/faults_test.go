package lab

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/e2e/netns"
)

// reaches says whether node a gets an answer over TCP from an address: a refusal
// of the port is one.
func reaches(t *testing.T, l *Lab, a int, to netip.Addr, port uint16) bool {
	t.Helper()
	c, err := l.Dial(NodeName(a), netip.AddrPortFrom(to, port), 150*time.Millisecond)
	if err == nil {
		_ = c.Close()
	}
	return err == nil || strings.Contains(err.Error(), "refused")
}

// picture lists which nodes reach which, at an ordinary port and at the gossip's,
// and who reaches the router's side.
func picture(t *testing.T, l *Lab) string {
	t.Helper()
	var seen []string
	// What was asked in vain is asked again only after a second (neighbour(7)).
	for _, host := range []string{"n1", "n2", Router} {
		if _, err := l.Exec(host, "ip", "neigh", "flush", "all"); err != nil {
			t.Fatal(err)
		}
	}
	for a := 1; a <= l.Options.Nodes; a++ {
		for b := 1; b <= l.Options.Nodes; b++ {
			if a == b {
				continue
			}
			if reaches(t, l, a, l.NodeIP(b), 9999) {
				seen = append(seen, fmt.Sprintf("%d>%d", a, b))
			}
			if !reaches(t, l, a, l.NodeIP(b), uint16(l.Options.GossipPort)) {
				seen = append(seen, fmt.Sprintf("no gossip %d>%d", a, b))
			}
		}
		if reaches(t, l, a, PublicAddr, TCPPort) {
			seen = append(seen, fmt.Sprintf("%d>out", a))
		}
	}
	return strings.Join(seen, ", ")
}

func TestFaultsDoWhatTheySay(t *testing.T) {
	for _, two := range []bool{false, true} {
		t.Run(fmt.Sprintf("two networks %t", two), func(t *testing.T) {
			l := Test(t, Options{Prefix: "spltf", Nodes: 2, PodsPerNode: -1, TwoNetworks: two})
			const whole = "1>2, 1>out, 2>1, 2>out"
			noGossip := "1>2, no gossip 1>2, 1>out, 2>1, no gossip 2>1, 2>out"
			outsideCut := "no gossip 1>2, no gossip 2>1, 2>out"
			if two {
				outsideCut = "1>2, 2>1, 2>out"
			}
			for _, c := range []struct {
				name   string
				strike func() error
				want   string
			}{
				{"nothing", func() error { return nil }, whole},
				{"power cut", func() error { _, err := l.PowerCut(1); return err }, "no gossip 1>2, no gossip 2>1, 2>out"},
				{"all lost", func() error { return l.Lose(1, 100) }, "no gossip 1>2, no gossip 2>1, 2>out"},
				{"outside cut", func() error { return l.CutOutside(1) }, outsideCut},
				{"outside cut silently", func() error { return l.CutOutsideSilently(1) }, outsideCut},
				{"gossip cut", func() error { return l.CutGossip(1) }, noGossip},
				{"isolated", l.Isolate, "no gossip 1>2, 1>out, no gossip 2>1, 2>out"},
				{"partition of one group", func() error { return l.Partition([]int{1, 2}) }, whole},
				{"rebooted", func() error { return l.Reboot(1) }, whole},
			} {
				if err := c.strike(); err != nil {
					t.Fatalf("%s: %v", c.name, err)
				}
				if got := picture(t, l); got != c.want {
					t.Errorf("%s:\n got %s\nwant %s", c.name, got, c.want)
				}
				if err := l.Heal(); err != nil {
					t.Fatalf("heal after %s: %v", c.name, err)
				}
				if got := picture(t, l); got != whole {
					t.Errorf("healed after %s:\n got %s\nwant %s", c.name, got, whole)
				}
			}
		})
	}
}

func TestCarrierTellsASilentCutFromALoudOne(t *testing.T) {
	l := Test(t, Options{Prefix: "spltg", Nodes: 1, PodsPerNode: -1})
	carrier := func() string {
		out, err := l.Exec("n1", "ip", "link", "show", "eth0")
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(out, "NO-CARRIER") {
			return "none"
		}
		return "present"
	}
	for _, c := range []struct {
		cut  func(int) error
		want string
	}{{l.CutOutsideSilently, "present"}, {l.CutOutside, "none"}} {
		if err := c.cut(1); err != nil {
			t.Fatal(err)
		}
		if got := carrier(); got != c.want {
			t.Errorf("carrier is %s, want %s", got, c.want)
		}
		if err := l.Heal(); err != nil {
			t.Fatal(err)
		}
	}
	if got := carrier(); got != "present" {
		t.Errorf("healed: carrier is %s", got)
	}
}

func TestHostStateSeesWhatIsLeft(t *testing.T) {
	l := Test(t, Options{Prefix: "splth", Nodes: 1})
	before, err := l.HostState("n1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.SeenAs("pod-1-1", PublicAddr, patience); err != nil { // traffic moves counters only
		t.Fatal(err)
	}
	same, err := l.HostState("n1")
	if err != nil {
		t.Fatal(err)
	}
	if d := before.Diff(same); d != "" {
		t.Errorf("traffic changed the state:\n%s", d)
	}
	traces := []struct{ command, sign string }{
		{"ip rule add fwmark 7 lookup 5301", "lookup 5301"},
		{"ip route add 198.51.100.0/24 dev eth0 table 5301 proto 99", "198.51.100.0/24"},
		{"ip link add sally0 type vxlan external gpe dstport 4793", "sally0"},
		{"ip addr add 192.0.2.10/32 dev eth0", "192.0.2.10/32"},
		{"nft add table ip sally", "table ip sally"},
		{"iptables-legacy -w -t mangle -N SALLY", "SALLY"},
		{"ipset create sally-src hash:ip", "sally-src"},
		{"sh -c 'echo 1 >/proc/sys/net/ipv4/conf/eth0/rp_filter'", "ipv4/conf/eth0/rp_filter = 1"},
	}
	for _, c := range traces {
		if _, err := l.Exec("n1", "sh", "-c", c.command); err != nil {
			t.Fatal(err)
		}
	}
	attachTrace(t, l, "n1")
	traces = append(traces, struct{ command, sign string }{"a tcx program", "eth0 TCXIngress: sally_trace"})
	after, err := l.HostState("n1")
	if err != nil {
		t.Fatal(err)
	}
	d := before.Diff(after)
	for _, c := range traces {
		if !strings.Contains(d, c.sign) {
			t.Errorf("%s leaves no trace %q in\n%s", c.command, c.sign, d)
		}
	}
}

// attachTrace has a program at a host's eth0 that does nothing; no tool attaches one.
func attachTrace(t *testing.T, l *Lab, host string) {
	t.Helper()
	ns, err := l.Namespace(host)
	if err != nil {
		t.Fatal(err)
	}
	if err := ns.Do(func() error {
		eth0, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
			Name: "sally_trace", Type: ebpf.SchedCLS, Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, -1), asm.Return()},
		})
		if err != nil {
			return err
		}
		defer p.Close()
		at, err := link.AttachTCX(link.TCXOptions{Interface: eth0.Index, Program: p, Attach: ebpf.AttachTCXIngress})
		if err == nil {
			t.Cleanup(func() { at.Close() })
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

func TestCaptureIsAPcap(t *testing.T) {
	l := Test(t, Options{Prefix: "splti", Nodes: 1, PodsPerNode: 1})
	path := filepath.Join(t.TempDir(), "out.pcap")
	c, err := l.Capture("router", "eth1", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.SeenAs("pod-1-1", PublicAddr, patience); err != nil {
		t.Fatal(err)
	}
	count, err := c.Stop()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b[:24], pcapHeader()) {
		t.Errorf("header %x", b[:24])
	}
	b = b[24:]
	found, records := false, 0
	for len(b) >= 16 {
		n := int(binary.LittleEndian.Uint32(b[8:]))
		found = found || bytes.Contains(b[16:16+n], []byte("192.0.2.1:")) // the partner's greeting
		b = b[16+n:]
		records++
	}
	if !found || records != count || len(b) != 0 {
		t.Errorf("greeting found %t, %d records of %d, %d bytes over", found, records, count, len(b))
	}
}

// TestMain makes the test binary a program for the lab to run, which shows its
// arguments, and a maker of labs that dies.
func TestMain(m *testing.M) {
	switch os.Getenv("SPLT_ROLE") {
	case "program":
		standIn()
	case "maker":
		if _, err := Up(Options{Prefix: "spltj", Nodes: 1}); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("up")
		panic("the maker of the lab dies")
	}
	os.Exit(m.Run())
}

func TestPanicLeavesNothing(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root for network namespaces")
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "SPLT_ROLE=maker")
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.HasPrefix(string(out), "up\n") {
		t.Fatalf("%v: %s", err, out)
	}
	if err := Await(patience, func() error {
		names, err := netns.Names("spltj-")
		if err == nil && len(names) > 0 {
			err = fmt.Errorf("left: %v", names)
		}
		files, _ := filepath.Glob((Options{Prefix: "spltj"}).withDefaults().Dir + "*")
		if err == nil && len(files) > 0 {
			err = fmt.Errorf("left: %v", files)
		}
		return err
	}); err != nil {
		t.Error(err)
	}
}

func TestProgramsAreStartedAndEnded(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	l := Test(t, Options{Prefix: "spltk", Nodes: 2, PodsPerNode: -1, TwoNetworks: true, Binary: self, Netfilter: "iptables", Env: []string{"SPLT_ROLE=program"}})
	if err := l.StartAll(); err != nil {
		t.Fatal(err)
	}
	status := func(role Role, j int) (s map[string]any) {
		t.Helper()
		if err := Await(patience, func() (err error) { s, err = l.Status(role, j); return err }); err != nil {
			t.Fatal(err)
		}
		return s
	}
	got := fmt.Sprint(status(Gateway, 2)["args"])
	for _, want := range []string{
		"gateway --node-name n2 --node-ip 10.0.0.2", "--vip 192.0.2.10@eth0,via=10.0.0.10@eth1", "--replicas 2",
		"--join 10.0.0.1,10.0.0.2", "--netfilter iptables", "--source dir:" + l.Manifests.Dir, "--http 127.0.0.1:9871",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the gateway's arguments %s lack %q", got, want)
		}
	}
	if got := fmt.Sprint(status(Agent, 1)["args"]); !strings.Contains(got, "agent --node-name n1") || strings.Contains(got, "--join") {
		t.Errorf("the agent's arguments: %s", got)
	}
	p, err := l.Program(Gateway, 2)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Pause(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	if _, _, err := l.Get(ctx, Gateway, 2, "/status"); err == nil {
		t.Error("a paused program answers")
	}
	cancel()
	if err := p.Continue(); err != nil {
		t.Fatal(err)
	}
	status(Gateway, 2)
	other, err := Attach("spltk")
	if err != nil {
		t.Fatal(err)
	}
	if same, err := other.Program(Gateway, 2); err != nil || same.Pid != p.Pid {
		t.Errorf("an attached lab sees %v, %v; want pid %d", same, err, p.Pid)
	}
	if err := other.Close(); err != nil {
		t.Error(err)
	}
	if err := p.Stop(); err != nil || p.Alive() {
		t.Errorf("stopped: %v, alive %t", err, p.Alive())
	}
	if text, _ := os.ReadFile(p.Log); !strings.Contains(string(text), "bye") {
		t.Errorf("its log: %q", text)
	}
	agent, err := l.Program(Agent, 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.PowerCut(1); err != nil {
		t.Fatal(err)
	}
	if agent.Alive() || unix.Kill(agent.Pid, 0) == nil {
		t.Error("the agent outlives the power cut")
	}
	if survivor, err := l.Program(Agent, 2); err != nil || !survivor.Alive() {
		t.Errorf("the other node's agent ended: %v", err)
	}
}

// hears says whether a datagram from node a to node b's port arrives.
func hears(t *testing.T, l *Lab, a, b, port int) bool {
	t.Helper()
	to := net.UDPAddrFromAddrPort(netip.AddrPortFrom(l.NodeIP(b), uint16(port)))
	var in, out *net.UDPConn
	for j, dial := range map[int]func() error{
		b: func() (err error) { in, err = net.ListenUDP("udp4", to); return err },
		a: func() (err error) { out, err = net.DialUDP("udp4", nil, to); return err },
	} {
		ns, err := l.Namespace(NodeName(j))
		if err == nil {
			err = ns.Do(dial)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	defer in.Close()
	defer out.Close()
	if _, err := out.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	_ = in.SetReadDeadline(time.Now().Add(150 * time.Millisecond))
	_, err := in.Read(make([]byte, 1))
	return err == nil
}

func TestCutsHaveDirections(t *testing.T) {
	l := Test(t, Options{Prefix: "spltl", Nodes: 2, PodsPerNode: -1})
	gossip := l.Options.GossipPort
	if !hears(t, l, 1, 2, gossip) || !hears(t, l, 2, 1, gossip) { // also fills the ARP caches
		t.Fatal("nothing is cut, but they do not hear each other")
	}
	if err := l.CutOneWay(1, 2); err != nil {
		t.Fatal(err)
	}
	if hears(t, l, 1, 2, 9999) || !hears(t, l, 2, 1, 9999) {
		t.Error("the cut is not from 1 to 2 alone")
	}
	if err := l.Heal(); err != nil {
		t.Fatal(err)
	}
	if err := l.CutGossip(1); err != nil {
		t.Fatal(err)
	}
	if hears(t, l, 1, 2, gossip) || hears(t, l, 2, 1, gossip) || !hears(t, l, 1, 2, 9999) {
		t.Error("the gossip of 1 is not cut in both directions, or more than it")
	}
}
