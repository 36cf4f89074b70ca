package nft

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"testing"

	"github.com/sallyport/sallyport/e2e/netns"
	"github.com/sallyport/sallyport/e2e/processor"
	"github.com/sallyport/sallyport/netfilter"
)

// large is 5,000 sources that share 1,000 routes of three destinations each.
func large() netfilter.Table {
	c := netfilter.Classifier{Name: "routes"}
	counting := netfilter.CountConnMark{Mask: 0xffff0000, Names: map[uint32]string{}}
	for i := range 1000 {
		value := uint32(i+1)<<16 | 0x100
		var targets []netfilter.Target
		for j := range 3 {
			t := netfilter.Target{CIDR: netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(100 + j), byte(i >> 8), byte(i), 0}), 24), Value: value}
			if j > 0 {
				t.Ports = []netfilter.ProtocolPorts{{Protocol: 6, Ports: netfilter.Ports{First: 443, Last: 444}}}
			}
			targets = append(targets, t)
		}
		c.Classes = append(c.Classes, targets)
		counting.Names[uint32(i+1)<<16] = fmt.Sprintf("route_%d", i+1)
	}
	for i := range 5000 {
		c.Sources = append(c.Sources, netfilter.Source{Addr: netip.AddrFrom4([4]byte{10, 244, byte(i >> 8), byte(i)}), Class: i % 1000})
	}
	return netfilter.Table{Name: "sally_scale", Classifiers: []netfilter.Classifier{c}, Chains: []netfilter.Chain{
		{Name: "mangle", Hook: netfilter.PreroutingMangle, Rules: []netfilter.Rule{{Action: netfilter.Classify{By: "routes"}}, {Action: counting}}},
	}}
}

func BenchmarkApply(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("needs root for a network namespace")
	}
	ns, err := netns.New(fmt.Sprintf("spn-%d-0-bench", os.Getpid()))
	if err != nil {
		b.Fatal(err)
	}
	defer ns.Close()
	ctx := context.Background()
	a, err := New(slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	table := large()
	do := func(f func() error) {
		if err := ns.Do(f); err != nil {
			b.Fatal(err)
		}
	}
	apply := func() error { return a.Apply(ctx, table) }
	// On a busy machine the processor time, nft's included, says more than the clock.
	metered := func(name string, f func(*testing.B)) {
		b.Run(name, func(b *testing.B) {
			before := processor.Used(b)
			f(b)
			b.ReportMetric(float64((processor.Used(b)-before).Microseconds())/1e3/float64(b.N), "cpu-ms/op")
		})
	}
	metered("cold", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			do(func() error { return a.Cleanup(ctx) })
			b.StartTimer()
			do(apply)
		}
	})
	metered("nothing", func(b *testing.B) {
		for b.Loop() {
			do(apply)
		}
	})
	metered("one-source", func(b *testing.B) {
		n := 0
		for b.Loop() {
			n++
			table.Classifiers[0].Sources = append(table.Classifiers[0].Sources[:5000], netfilter.Source{Addr: netip.MustParseAddr("10.250.0.1"), Class: n % 1000})
			do(apply)
		}
	})
	metered("one-target", func(b *testing.B) {
		n := 0
		for b.Loop() {
			n++
			table.Classifiers[0].Classes[0][0].CIDR = netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(n)}), 32)
			do(apply)
		}
	})
}
