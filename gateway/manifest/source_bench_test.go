package manifest

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/sallyport/sallyport/gateway"
)

// BenchmarkSource measures from the writing of one file among 6,000 to the view
// that shows it, and what the source keeps in memory.
func BenchmarkSource(b *testing.B) {
	dir := b.TempDir()
	for i := range 5000 {
		write(b, filepath.Join(dir, "pods", fmt.Sprintf("%d.yaml", i)), fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {namespace: ns%d, name: pod-%d, uid: uid-%d, labels: {app: app%d, tier: web}, annotations: {sallyport.dev/egress-routes: "r%d"}}
spec: {nodeName: n%d}
status: {phase: Running, podIPs: [{ip: 10.%d.%d.%d}]}
`, i%100, i, i, i%500, i%1000, i%50, i%50, i>>8, i&255))
	}
	for i := range 1000 {
		write(b, filepath.Join(dir, "routes", fmt.Sprintf("%d.yaml", i)), fmt.Sprintf(`apiVersion: sallyport.dev/v1alpha1
kind: EgressRoute
metadata: {name: r%d}
spec: {vip: 192.0.2.10, namespaceSelector: {}, destinations: [{cidr: 100.%d.%d.0/24, ports: [{port: 443}]}]}
`, i, i>>8, i&255))
	}
	before := memory()
	s := New(dir, slog.New(slog.NewTextHandler(io.Discard, nil)))
	ctx, cancel := context.WithCancel(context.Background())
	seen := make(chan gateway.Snapshot)
	ended := make(chan error)
	go func() {
		ended <- s.Run(ctx, func(snap gateway.Snapshot) {
			select {
			case seen <- snap:
			case <-ctx.Done():
			}
		})
	}()
	snap := <-seen
	if len(snap.Pods) != 5000 || len(snap.Routes) != 1000 || len(snap.Problems) > 0 {
		b.Fatalf("%d pods, %d routes, problems %v", len(snap.Pods), len(snap.Routes), snap.Problems)
	}
	kept := memory() - before
	file := filepath.Join(dir, "pods", "changing.yaml")
	n := 0
	for b.Loop() {
		n++
		addr := fmt.Sprintf("10.200.%d.%d", n>>8&255, n&255)
		if err := os.WriteFile(file, []byte(podYAML("changing", addr)), 0o644); err != nil {
			b.Fatal(err)
		}
		for shown := false; !shown; {
			snap = <-seen
			for _, p := range snap.Pods {
				shown = shown || p.Name == "changing" && p.Addrs[0].String() == addr
			}
		}
	}
	b.ReportMetric(float64(kept)/(1<<20), "MB-kept")
	runtime.KeepAlive(snap)
	cancel()
	if err := <-ended; err != nil {
		b.Fatal(err)
	}
}

func memory() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
