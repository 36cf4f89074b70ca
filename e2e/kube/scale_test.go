package kube_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"golang.org/x/sync/errgroup"

	"github.com/sallyport/sallyport/gateway"
	"github.com/sallyport/sallyport/gateway/kube"
)

// fill gives the server pods as a cluster has them: of deployments, with what their
// kubelets and controllers write into them.
func fill(t *testing.T, api core, pods, nodes int) {
	t.Helper()
	g, ctx := errgroup.WithContext(t.Context())
	g.SetLimit(32)
	for i := range pods {
		g.Go(func() error {
			p := pod(fmt.Sprintf("app-%d-7c9f8d6b5-%05d", i%500, i), fmt.Sprintf("n%d", i%nodes))
			yes := true
			p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: fmt.Sprintf("app-%d-7c9f8d6b5", i%500), UID: "6f1c0f0e-58a2-4a08-9a50-6d2f0c1b7a11", Controller: &yes}}
			p.Labels = map[string]string{"app": fmt.Sprintf("app-%d", i%500), "tier": "web", "pod-template-hash": fmt.Sprint(i % 500)}
			p.Annotations = map[string]string{"checksum/config": strings.Repeat("0123456789abcdef", 4), "prometheus.io/scrape": "true"}
			p.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "JAVA_OPTS", Value: strings.Repeat("-Dsome.property=value ", 20)}}
			addr := podAddr(i).String()
			return api.addPod(ctx, p, addr, "10.0.0.1")
		})
	}
	must(t, g.Wait())
}

func podAddr(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(16 + i>>16), byte(i >> 8), byte(i)})
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// changed is where the addresses are that pods change to.
var changed = netip.MustParsePrefix("10.200.0.0/16")

// A gateway keeps all pods; each costs it little, and a change is seen soon while
// many others change.
func TestManyPods(t *testing.T) {
	const many, changes, rate = 1_000, 500, 100
	api := admin(t)
	for n := range 20 {
		api.addNode(t, n)
	}
	begun := time.Now()
	fill(t, api, many, 20)
	t.Logf("%d pods made in %v", many, time.Since(begun).Round(time.Second))

	client, err := kube.Connect(server.Kubeconfig, "sallyport-test", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	views := 0
	var last gateway.Snapshot
	seen, answered := map[netip.Addr]time.Time{}, map[netip.Addr]time.Time{}
	before := heap()
	begun = time.Now()
	source := kube.NewSource(client, "")
	g, ctx := errgroup.WithContext(t.Context())
	ctx, cancel := context.WithCancel(ctx)
	defer func() {
		cancel()
		must(t, g.Wait())
	}()
	g.Go(func() error {
		return source.Run(ctx, func(s gateway.Snapshot) {
			now := time.Now()
			mu.Lock()
			defer mu.Unlock()
			last = s
			views++
			for _, p := range s.Pods {
				for _, a := range p.Addrs {
					if _, is := seen[a]; !is && changed.Contains(a) {
						seen[a] = now
					}
				}
			}
		})
	})
	eventually(t, "the first view", func() bool { mu.Lock(); defer mu.Unlock(); return len(last.Pods) == many })
	t.Logf("first view after %v", time.Since(begun).Round(time.Millisecond))
	mu.Lock()
	last = gateway.Snapshot{} // what a program keeps besides is its own
	mu.Unlock()
	kept := heap() - before
	t.Logf("%d pods are kept in %.1f MB, %d bytes each", many, float64(kept)/1e6, kept/many)
	if kept/many > 1500 {
		t.Errorf("%d bytes a pod", kept/many)
	}

	mu.Lock()
	views = 0
	mu.Unlock()
	churn := time.NewTicker(time.Second / rate)
	defer churn.Stop()
	writers, wctx := errgroup.WithContext(ctx)
	begun = time.Now()
	for i := range changes {
		<-churn.C
		writers.Go(func() error {
			p := &corev1.Pod{}
			name := fmt.Sprintf("app-%d-7c9f8d6b5-%05d", i%500, i)
			if err := api.Get().Namespace("default").Resource("pods").Name(name).Do(wctx).Into(p); err != nil {
				return err
			}
			addr := netip.AddrFrom4([4]byte{10, 200, byte(i >> 8), byte(i)}) // in changed
			p.Status.PodIP, p.Status.PodIPs = addr.String(), []corev1.PodIP{{IP: addr.String()}}
			err := api.status(wctx, "pods", "default", name, p)
			mu.Lock()
			defer mu.Unlock()
			answered[addr] = time.Now()
			return err
		})
	}
	must(t, writers.Wait())
	span := time.Since(begun)
	eventually(t, "all changes", func() bool { mu.Lock(); defer mu.Unlock(); return len(seen) == changes })
	mu.Lock()
	defer mu.Unlock()
	var took []time.Duration
	for addr, at := range answered {
		took = append(took, max(0, seen[addr].Sub(at))) // a view may be sooner than the answer
	}
	slices.Sort(took)
	t.Logf("%d changes in %v, %d views; from the server's answer to the view: median %v, p99 %v, longest %v", changes, span.Round(10*time.Millisecond), views,
		took[len(took)/2], took[len(took)*99/100], took[len(took)-1])
	if most := int(span/(20*time.Millisecond)) + 2; views > most {
		t.Errorf("%d views of all pods in %v", views, span)
	}
}
