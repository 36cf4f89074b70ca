package iptables

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"testing"

	"github.com/sallyport/sallyport/e2e/netns"
	nf "github.com/sallyport/sallyport/netfilter"
)

// crowd is a table of sources with two routes each.
func crowd(sources, routes int) nf.Table {
	c := nf.Classifier{Name: "routes"}
	route := func(n int) nf.Target {
		return nf.Target{
			CIDR: netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 18, byte(n >> 8), byte(n)}), 32), Value: uint32(n+1) << 16,
			Ports: []nf.ProtocolPorts{{Protocol: 6, Ports: nf.Ports{First: 443, Last: 443}}},
		}
	}
	for n := range routes {
		c.Classes = append(c.Classes, []nf.Target{route(n), route((n + 7) % routes)})
	}
	for n := range sources {
		c.Sources = append(c.Sources, nf.Source{Addr: netip.AddrFrom4([4]byte{10, 244, byte(n >> 8), byte(n)}), Class: n % routes})
	}
	names := map[uint32]string{}
	for n := range routes {
		names[uint32(n+1)<<16] = fmt.Sprintf("route_%d", n+1)
	}
	return nf.Table{Name: "sally_crowd", Classifiers: []nf.Classifier{c}, Chains: []nf.Chain{{Name: "in", Hook: nf.PreroutingMangle, Rules: []nf.Rule{
		{Action: nf.Classify{By: "routes"}}, {Action: nf.CountConnMark{Mask: 0xffff0000, Names: names}},
	}}}}
}

func benchmark(b *testing.B, run func(*testing.B, *Applier, nf.Table)) {
	for _, routes := range []int{200, 1000} {
		for _, v := range []Variant{NFT, Legacy} {
			b.Run(fmt.Sprintf("%s/%d_routes", v, routes), func(b *testing.B) {
				ns, err := netns.New("spi-bench")
				if err != nil {
					b.Fatal(err)
				}
				defer func() {
					if err := ns.Close(); err != nil {
						b.Error(err)
					}
				}()
				a, err := New(v, slog.New(slog.DiscardHandler))
				if err != nil {
					b.Fatal(err)
				}
				if err := ns.Do(func() error { run(b, a, crowd(5000, routes)); return nil }); err != nil {
					b.Fatal(err)
				}
			})
		}
	}
}

// BenchmarkCold is the first Apply of 5,000 sources.
func BenchmarkCold(b *testing.B) {
	benchmark(b, func(b *testing.B, a *Applier, t nf.Table) {
		for b.Loop() {
			if err := a.Apply(context.Background(), t); err != nil {
				b.Error(err)
				return
			}
			b.StopTimer()
			if err := a.Cleanup(context.Background()); err != nil {
				b.Error(err)
			}
			b.StartTimer()
		}
	})
}

// BenchmarkOneSource is the Apply after one source came or went.
func BenchmarkOneSource(b *testing.B) {
	benchmark(b, func(b *testing.B, a *Applier, t nf.Table) {
		if err := a.Apply(context.Background(), t); err != nil {
			b.Error(err)
			return
		}
		late := netip.MustParseAddr("10.245.0.1")
		for n := 0; b.Loop(); n++ {
			if t.Classifiers[0].Sources = t.Classifiers[0].Sources[:5000]; n%2 == 0 {
				t.Classifiers[0].Sources = append(t.Classifiers[0].Sources, nf.Source{Addr: late, Class: 3})
			}
			if err := a.Apply(context.Background(), t); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// BenchmarkNothing is the Apply that finds the kernel as it should be.
func BenchmarkNothing(b *testing.B) {
	benchmark(b, func(b *testing.B, a *Applier, t nf.Table) {
		for b.Loop() {
			if err := a.Apply(context.Background(), t); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
