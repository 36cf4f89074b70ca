package lab

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestBaselinesCarryTraffic(t *testing.T) {
	for _, two := range []bool{false, true} {
		for _, c := range []struct {
			name string
			make func(*Lab) error
			want func(*Pod) netip.Addr
		}{
			{"plain", (*Lab).PlainForwarding, func(p *Pod) netip.Addr { return p.Addr }},
			{"tunnel", func(l *Lab) error { return l.HandMadeTunnel(1) }, func(*Pod) netip.Addr { return vip }},
		} {
			t.Run(fmt.Sprintf("%s, two networks %t", c.name, two), func(t *testing.T) {
				l := Test(t, Options{Prefix: "spltm", Nodes: 2, PodsPerNode: 1, TwoNetworks: two})
				if err := c.make(l); err != nil {
					t.Fatal(err)
				}
				for _, p := range l.Pods() {
					if got, err := l.SeenAs(p.Name, PartnerAddr, patience); err != nil || got != c.want(p) {
						t.Errorf("%s is seen as %s, %v; want %s", p.Name, got, err, c.want(p))
					}
					bulk(t, l, p.Name)
				}
			})
		}
	}
}

// bulk sends full-sized segments: a path whose MTU does not fit would stall.
func bulk(t *testing.T, l *Lab, pod string) {
	t.Helper()
	c, err := l.Dial(pod, netip.AddrPortFrom(PartnerAddr, DiscardPort), patience)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	before := l.Partner.DiscardedBytes.Load()
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := c.Write(make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	if err := Await(patience, func() error {
		if got := l.Partner.DiscardedBytes.Load() - before; got != 1<<20 {
			return fmt.Errorf("%d bytes of a MiB arrived", got)
		}
		return nil
	}); err != nil {
		t.Errorf("bulk from %s: %v", pod, err)
	}
}

func TestLateMasquerade(t *testing.T) {
	l := Test(t, Options{Prefix: "spltn", Nodes: 1, PodsPerNode: 1, MasqueradeLate: true})
	if got, err := l.SeenAs("pod-1-1", PublicAddr, 100*time.Millisecond); err == nil {
		t.Errorf("without a masquerade, seen as %s", got)
	}
	if err := l.Masquerade(1); err != nil {
		t.Fatal(err)
	}
	if got, err := l.SeenAs("pod-1-1", PublicAddr, patience); err != nil || got != OutsideAddr(1) {
		t.Errorf("seen as %s, %v", got, err)
	}
}

func TestFakeObjects(t *testing.T) {
	l := Test(t, Options{Prefix: "splto", Nodes: 1, PodsPerNode: -1})
	begin := time.Now()
	if err := l.AddFakePods(300, func(i int) string { return fmt.Sprintf("fake-%d", i%20) }); err != nil {
		t.Fatal(err)
	}
	if err := l.AddFakeRoutes(20); err != nil {
		t.Fatal(err)
	}
	t.Logf("written in %s", time.Since(begin))
	for kind, want := range map[string]int{"pod": 300, "egressroute": 20, "node": 1, "namespace": 1} {
		if files, _ := filepath.Glob(filepath.Join(l.Manifests.Dir, kind+"-*.yaml")); len(files) != want {
			t.Errorf("%d files of kind %s, want %d", len(files), kind, want)
		}
	}
	if entries, _ := os.ReadDir(l.Manifests.scratch); len(entries) != 0 {
		t.Errorf("%d files are left half-way", len(entries))
	}
}
