package replica

import (
	"log/slog"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/audit"
	"github.com/sallyport/sallyport/audit/journal"
	"github.com/sallyport/sallyport/e2e/processor"
	"github.com/sallyport/sallyport/flows/conntrack"
	"github.com/sallyport/sallyport/gateway"
)

// BenchmarkAudit is what the record of a connection costs beside hearing of it: an
// operation is one connection of 5000 pods, begun among 10,000 others and ended, with its
// lines in a file. The processor's time is cpu-ns/op, whatever else the machine does.
func BenchmarkAudit(b *testing.B) {
	for name, starts := range map[string]bool{"ends": false, "starts and ends": true} {
		b.Run(name, func(b *testing.B) { benchmarkAudit(b, starts) })
	}
}

func benchmarkAudit(b *testing.B, starts bool) {
	const pods, open, batch = 5000, 10000, 200
	vip, partner := netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("203.0.113.5")
	plan := gateway.Plan{Routes: []gateway.PlannedRoute{{Name: "payments", ID: 7, VIP: vip, Audit: true}}}
	for n := range pods {
		plan.Pods = append(plan.Pods, gateway.PlannedPod{
			Addr: netip.AddrFrom4([4]byte{10, 244, byte(n >> 8), byte(n)}), Namespace: "shop", Name: "web-6d4b75cb6d-x7k2p",
			UID: "0f8e5a3c-1b2d-4e6f-8a9b-0c1d2e3f4a5b", Node: "worker-1", Routes: []int{0},
		})
	}
	a := newAuditor(Audit{
		Config: journal.Config{Path: filepath.Join(b.TempDir(), "c.jsonl"), Keep: 1 << 28, Gateway: "gateway-0"}, Starts: starts, Queue: 1 << 16,
	}, 51, nil, slog.New(slog.DiscardHandler))
	a.learn(plan)
	a.holds(vip, "gateway-0")
	events := make([]conntrack.Event, 0, 2*batch)
	event := func(kind conntrack.EventKind, n int) {
		events = append(events, conntrack.Event{Kind: kind, Entry: conntrack.Entry{
			Original: conntrack.Tuple{Src: plan.Pods[n%pods].Addr, Dst: partner, Protocol: unix.IPPROTO_TCP, SrcPort: uint16(1024 + n/pods%60000), DstPort: 443},
			Reply:    conntrack.Tuple{Src: partner, Dst: vip, Protocol: unix.IPPROTO_TCP, SrcPort: 443, DstPort: uint16(1024 + n%60000)},
			Zone:     51, Mark: 7 << 16, Status: conntrack.SeenReply,
		}})
	}
	var records []audit.Record
	var spare []told
	pass := func(n int) {
		events = events[:0]
		for i := n; i < n+batch; i++ {
			event(conntrack.New, i)
			if i >= open {
				event(conntrack.Destroyed, i-open)
			}
		}
		a.hear(events)
		records = a.drain(records[:0], &spare)
		a.write(records)
		if n%open == 0 { // a second is over
			a.journal.Flush(time.Now())
		}
	}
	n := 0
	for ; n < open; n += batch {
		pass(n)
	}
	b.ReportAllocs()
	b.ResetTimer()
	before := processor.Used(b)
	for last := n + b.N; n < last; n += batch {
		pass(n)
	}
	b.ReportMetric(float64(processor.Used(b)-before)/float64(b.N), "cpu-ns/op")
	a.journal.End(time.Now())
}
