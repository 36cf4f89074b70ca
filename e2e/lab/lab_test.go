package lab

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/e2e/netns"
)

var vip = netip.MustParseAddr("192.0.2.10")

const patience = 20 * time.Second

func TestLabLeavesNothing(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root for network namespaces")
	}
	o := Options{Prefix: "splta"}
	if names, _ := netns.Names("splta-"); len(names) > 0 {
		t.Logf("an interrupted run left %v", names)
	}
	before := onHost(t)
	begin := time.Now()
	l, err := Up(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("up after %s", time.Since(begin))
	names, err := netns.Names("splta-")
	if err != nil || len(names) != 3+3+6 {
		t.Errorf("namespaces of the lab: %v, %v", names, err)
	}
	if _, err := l.Capture("router", "eth0", filepath.Join(t.TempDir(), "x.pcap")); err != nil {
		t.Error(err)
	}
	if _, err := l.StartEcho("pod-1-1", PublicAddr, 5*time.Millisecond); err != nil {
		t.Error(err)
	}
	begin = time.Now()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	t.Logf("down after %s", time.Since(begin))
	if names, _ := netns.Names("splta-"); len(names) != 0 {
		t.Errorf("namespaces left: %v", names)
	}
	for _, path := range []string{l.Options.Dir, l.Options.Dir + ".lock"} {
		if _, err := os.Stat(path); !os.IsNotExist(err) {
			t.Errorf("%s is left: %v", path, err)
		}
	}
	if d := before.Diff(onHost(t)); d != "" {
		t.Errorf("the host is not as it was:\n%s", d)
	}
}

// onHost is the state of the namespace the test runs in.
func onHost(t *testing.T) HostState {
	t.Helper()
	s, err := listState(exec.Command, func(f func() error) error { return f() })
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestUnselectedPodsAreSeenAsTheirNode(t *testing.T) {
	for _, way := range []Masquerade{MasqueradeNft, MasqueradeIptablesNft, MasqueradeIptablesLegacy} {
		t.Run(string(way), func(t *testing.T) {
			l := Test(t, Options{Prefix: "spltb", Nodes: 2, PodsPerNode: 1, Masquerade: way})
			for j := 1; j <= 2; j++ {
				pod := fmt.Sprintf("pod-%d-1", j)
				got, err := l.SeenAs(pod, PublicAddr, patience)
				if err != nil || got != OutsideAddr(j) {
					t.Errorf("%s is seen as %s, %v; want %s", pod, got, err, OutsideAddr(j))
				}
			}
			if got, err := l.SeenAs("pod-2-1", PartnerAddr, 100*time.Millisecond); err == nil {
				t.Errorf("the partner admitted %s", got)
			}
			refused, err := l.Partner.Refused()
			if err != nil || len(refused) != 1 || refused[0].Source != OutsideAddr(2) ||
				refused[0].Protocol != "tcp" || refused[0].Port != TCPPort || refused[0].Packets == 0 {
				t.Errorf("refused %v, %v", refused, err)
			}
			if seen := l.Partner.Seen(ServiceTCP); len(seen) != 2 || seen[OutsideAddr(1)] != 1 {
				t.Errorf("the partner saw %v", seen)
			}
		})
	}
}

func TestHandMadePathSurvivesAMove(t *testing.T) {
	for _, two := range []bool{false, true} {
		t.Run(fmt.Sprintf("two networks %t", two), func(t *testing.T) {
			l := Test(t, Options{Prefix: "spltc", PodsPerNode: 1, TwoNetworks: two})
			h, err := l.MakeByHand(1, "pod-1-1", "pod-2-1")
			if err != nil {
				t.Fatal(err)
			}
			watch, err := l.WatchARP(5 * time.Millisecond)
			if err != nil {
				t.Fatal(err)
			}
			for _, pod := range []string{"pod-1-1", "pod-2-1"} {
				if got, err := l.SeenAs(pod, PartnerAddr, patience); err != nil || got != vip {
					t.Fatalf("%s is seen as %s, %v", pod, got, err)
				}
			}
			stream, err := l.StartStream("pod-2-1", PartnerAddr, 5*time.Millisecond)
			if err != nil {
				t.Fatal(err)
			}
			listening, err := l.StartListening("pod-2-1", PartnerAddr)
			if err != nil {
				t.Fatal(err)
			}
			echo, err := l.StartEcho("pod-2-1", PartnerAddr, 5*time.Millisecond)
			if err != nil {
				t.Fatal(err)
			}
			connects, err := l.StartConnects("pod-2-1", PartnerAddr, 5*time.Millisecond)
			if err != nil {
				t.Fatal(err)
			}
			answered(t, time.Now(), echo.client, stream.client, listening.client, connects.client)

			for port, s := range map[uint16]*Stream{TCPPort: stream, PushPort: listening} {
				if err := h.Replicate(3, s.Local(), port); err != nil {
					t.Fatal(err)
				}
			}
			fault, err := l.PowerCut(1)
			if err != nil {
				t.Fatal(err)
			}
			if err := Await(patience, func() error {
				if n := len(echo.Report().Between(fault, time.Time{}).Exchanges); n < 5 {
					return fmt.Errorf("%d questions asked since the fault", n)
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			claiming := time.Now()
			if err := h.Claim(3); err != nil {
				t.Fatal(err)
			}
			claimed := time.Now()
			answered(t, claimed, echo.client, stream.client, listening.client, connects.client)
			if err := Await(patience, func() error {
				if o := watch.Owner(vip, 100*time.Millisecond); o != 3 {
					return fmt.Errorf("owner is n%d", o)
				}
				return nil
			}); err != nil {
				t.Error(err)
			}

			for name, s := range map[string]*Stream{"stream": stream, "listening": listening} {
				if tl := s.Stop(); s.Broken() != nil || s.Source().Addr() != vip {
					t.Errorf("%s: source %s, %v", name, s.Source(), s.Broken())
				} else {
					t.Logf("%s: longest stall %s", name, tl.LongestGap().Length())
				}
			}
			for name, tl := range map[string]Timeline{"echo": echo.Stop(), "connects": connects.Stop()} {
				next, ok := tl.NextReply(fault)
				t.Logf("%s: next reply %s %t after the fault, longest gap %s, lost %d of %d, median %s", name, next, ok,
					tl.LongestGap().Length(), tl.Lost(), len(tl.Exchanges), tl.Latency(0.5))
				if s := tl.Sources(); len(s) != 1 || s[vip] == 0 {
					t.Errorf("%s: the partner saw %v", name, s)
				}
				if !ok || fault.Add(next).Before(claiming) {
					t.Errorf("%s: the next reply came %s after the fault, %t, but the claim began only after %s", name, next, ok, claiming.Sub(fault))
				}
			}
			owners := watch.Owners(vip)
			if len(owners) != 2 || owners[0].Node != 1 || owners[1].Node != 3 {
				t.Errorf("owners %v", owners)
			}
			if v := watch.Violations(); len(v) != 0 {
				t.Errorf("violations %v", v)
			}
			if refused, err := l.Partner.Refused(); err != nil || len(refused) != 0 {
				t.Errorf("refused %v, %v", refused, err)
			}
		})
	}
}

// answered waits until each client has an answer to a question asked after the moment.
func answered(t *testing.T, after time.Time, clients ...*client) {
	t.Helper()
	for i, c := range clients {
		if err := Await(patience, func() error {
			if _, ok := c.Report().NextReply(after); !ok {
				return fmt.Errorf("client %d has no answer", i)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestARPWatchSeesTwoOwners(t *testing.T) {
	l := Test(t, Options{Prefix: "spltd", PodsPerNode: -1})
	h, err := l.MakeByHand(1)
	if err != nil {
		t.Fatal(err)
	}
	watch, err := l.WatchARP(5 * time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	owner := func(j int) {
		t.Helper()
		if err := Await(patience, func() error {
			if o := watch.Owner(vip, time.Minute); o != j {
				return fmt.Errorf("owner is n%d", o)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	owner(1)
	if err := h.Release(1); err != nil {
		t.Fatal(err)
	}
	if err := h.Claim(2); err != nil {
		t.Fatal(err)
	}
	owner(2)
	if v := watch.Violations(); len(v) != 0 {
		t.Fatalf("violations of a clean move: %v", v)
	}
	if err := h.Announce(1); err != nil { // a zombie speaks
		t.Fatal(err)
	}
	if err := Await(patience, func() error {
		for _, v := range watch.Violations() {
			if v.Node == 1 && v.Other == 2 {
				return nil
			}
		}
		return fmt.Errorf("violations %v", watch.Violations())
	}); err != nil {
		t.Error(err)
	}
}

func TestAddressIsUsedAgain(t *testing.T) {
	l := Test(t, Options{Prefix: "splte", Nodes: 1, PodsPerNode: 2})
	old, err := l.Pod("pod-1-2")
	if err != nil {
		t.Fatal(err)
	}
	path := l.Manifests.Path("Pod", "default", "pod-1-2")
	if err := l.Annotate("pod-1-2", "payments"); err != nil {
		t.Fatal(err)
	}
	if text, _ := os.ReadFile(path); !strings.Contains(string(text), "sallyport.dev/egress-routes: payments") {
		t.Errorf("manifest:\n%s", text)
	}
	if err := l.RemovePod("pod-1-2"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the manifest is left: %v", err)
	}
	next, err := l.AddPod(PodSpec{Name: "other", Node: 1})
	if err != nil {
		t.Fatal(err)
	}
	if next.Addr != old.Addr || next.UID == old.UID {
		t.Errorf("pod other: %s %s, was %s %s", next.Addr, next.UID, old.Addr, old.UID)
	}
	if got, err := l.SeenAs("other", PublicAddr, patience); err != nil || got != OutsideAddr(1) {
		t.Errorf("seen as %s, %v", got, err)
	}
}
