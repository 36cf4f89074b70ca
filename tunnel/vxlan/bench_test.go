package vxlan

import (
	"log/slog"
	"maps"
	"net/netip"
	"os/exec"
	"runtime"
	"testing"

	"github.com/vishvananda/netns"

	"github.com/sallyport/sallyport/tunnel"
)

const manyPods = 5000

// benchHost is host for a benchmark.
func benchHost(b *testing.B) *Applier {
	b.Helper()
	runtime.LockOSThread()
	before, err := netns.Get()
	if err != nil {
		b.Fatal(err)
	}
	fresh, err := netns.New()
	if err != nil {
		b.Skip("needs root for a network namespace: ", err)
	}
	b.Cleanup(func() {
		_ = netns.Set(before)
		_, _ = fresh.Close(), before.Close()
		runtime.UnlockOSThread()
	})
	out, err := exec.Command("sh", "-ec", `ip link set lo up; ip link add eth0 type veth peer name peer0
ip link set eth0 up; ip link set peer0 up; ip addr add 192.0.2.1/24 dev eth0`).CombinedOutput()
	if err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	a, err := New(tunnel.DefaultConfig(), slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = a.Close() })
	return a
}

func BenchmarkCold5000(b *testing.B) {
	a := benchHost(b)
	plan := a.cfg.Downward(local, maps.All(pods(manyPods)))
	for b.Loop() {
		if err := a.Apply(b.Context(), plan); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := Cleanup(b.Context(), a.log); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

func BenchmarkOneOf5000(b *testing.B) {
	a := benchHost(b)
	nodeOf := pods(manyPods)
	if err := a.Apply(b.Context(), a.cfg.Downward(local, maps.All(nodeOf))); err != nil {
		b.Fatal(err)
	}
	moving := netip.MustParseAddr("10.244.3.3")
	for i := 0; b.Loop(); i++ {
		b.StopTimer()
		nodeOf[moving] = netip.AddrFrom4([4]byte{192, 0, 2, byte(100 + i%2)})
		plan := a.cfg.Downward(local, maps.All(nodeOf))
		b.StartTimer()
		if err := a.Apply(b.Context(), plan); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkNothingOf5000(b *testing.B) {
	a := benchHost(b)
	plan := a.cfg.Downward(local, maps.All(pods(manyPods)))
	for b.Loop() {
		if err := a.Apply(b.Context(), plan); err != nil {
			b.Fatal(err)
		}
	}
}
