package layer2

import (
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

func report(b *testing.B, took []time.Duration) {
	slices.Sort(took)
	us := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }
	b.ReportMetric(us(took[len(took)/2]), "p50-µs")
	b.ReportMetric(us(took[len(took)*99/100]), "p99-µs")
	b.ReportMetric(us(took[len(took)-1]), "max-µs")
}

// What a heartbeat pays for the fence, alone and beside a service proxy that writes
// thousands of elements and rules at a time.
func BenchmarkRenew(b *testing.B) {
	for _, beside := range []bool{false, true} {
		b.Run(fmt.Sprintf("beside_nft=%v", beside), func(b *testing.B) {
			a := segment(b, "a")["a"]
			a.install(b)
			if beside {
				stop, done := make(chan struct{}), make(chan struct{})
				big := bigTransaction()
				go func() {
					defer close(done)
					for {
						select {
						case <-stop:
							return
						default:
							cmd := exec.Command("ip", "netns", "exec", a.ns.Name, "nft", "-f", "-")
							cmd.Stdin = strings.NewReader(big)
							if out, err := cmd.CombinedOutput(); err != nil {
								b.Errorf("%v: %s", err, out)
								return
							}
						}
					}
				}()
				defer func() { close(stop); <-done }()
			}
			var took []time.Duration
			for b.Loop() {
				begun := time.Now()
				must(b, a.fence.Renew(only, time.Second))
				took = append(took, time.Since(begun))
				<-time.After(time.Millisecond)
			}
			report(b, took)
		})
	}
}

func bigTransaction() string {
	var s strings.Builder
	s.WriteString("add table ip big\ndelete table ip big\ntable ip big { map m { type ipv4_addr : mark; elements = {")
	for i := range 5000 {
		fmt.Fprintf(&s, "10.0.%d.%d : %d,", i>>8, i&255, i+1)
	}
	s.WriteString("}; }; chain x {\n")
	for i := range 2000 {
		fmt.Fprintf(&s, "ip saddr 10.0.0.1 ip daddr 10.0.%d.%d counter accept\n", i>>8, i&255)
	}
	s.WriteString("}\n}\n")
	return s.String()
}

// How long after a renewal for 100 ms another host still gets answers.
func BenchmarkExpiry(b *testing.B) {
	s := segment(b, "a", "b")
	a, asker := s["a"], s["b"]
	a.install(b)
	must(b, a.addAddress(addr, "eth0", index(b, a)))
	ears, _, err := asker.listen(addr, "eth0")
	must(b, err)
	defer ears.Close()
	link, err := asker.links.LinkByName("eth0")
	must(b, err)
	ask := arpFrame(arpRequest, link.Attrs().HardwareAddr, netip.MustParseAddr("192.0.2.2"), nil, addr)
	var took []time.Duration
	for b.Loop() {
		begun := Boottime()
		must(b, a.fence.RenewUntil(only, begun+100*time.Millisecond))
		ctx, cancel := context.WithTimeout(context.Background(), 130*time.Millisecond)
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			for ctx.Err() == nil {
				_ = asker.send(link.Attrs().Index, ask)
				<-time.After(500 * time.Microsecond)
			}
		}()
		must(b, ears.SetReadDeadline(time.Now().Add(130*time.Millisecond)))
		var last time.Duration
		for buf := make([]byte, 64); ; {
			if _, _, err := ears.ReadFrom(buf); err != nil {
				break
			}
			last = Boottime() - begun
		}
		cancel()
		<-sent
		took = append(took, last)
	}
	report(b, took)
}

// From the call of Claim to the first frame on another host.
func BenchmarkClaim(b *testing.B) {
	s := segment(b, "a", "b")
	a, other := s["a"], s["b"]
	a.install(b)
	ears, _, err := other.listen(addr, "eth0")
	must(b, err)
	defer ears.Close()
	heard := make(chan time.Time, 64)
	go func() {
		defer close(heard)
		for buf := make([]byte, 64); ; {
			if _, _, err := ears.ReadFrom(buf); err != nil {
				return
			}
			heard <- time.Now()
		}
	}()
	must(b, a.fence.Renew(only, 10*time.Second))
	var took []time.Duration
	for b.Loop() {
		must(b, a.fence.Renew(only, 10*time.Second))
		begun := time.Now()
		must(b, a.say.Claim(v))
		took = append(took, (<-heard).Sub(begun))
		must(b, a.say.Release(v))
		<-heard // the reply that goes with the request
	}
	report(b, took)
	must(b, ears.Close())
	for range heard {
	}
}

func index(t testing.TB, s *station) int {
	t.Helper()
	link, err := s.links.LinkByName("eth0")
	must(t, err)
	return link.Attrs().Index
}
