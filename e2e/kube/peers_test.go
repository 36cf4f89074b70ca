package kube_test

import (
	"context"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/sallyport/sallyport/gateway"
	"github.com/sallyport/sallyport/gateway/kube"
)

// gatewayPods may only be seen by this account in their own namespace.
const gatewayPods = `
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: peers, namespace: default}
rules:
- {apiGroups: [""], resources: [pods], verbs: [list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: peers, namespace: default}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: peers}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: peers}]
`

// found is what the peers of a gateway were told to be, one after another.
type found struct {
	*kube.Peers
	mu   sync.Mutex
	all  []string
	stop func()
}

func (f *found) last() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.all) == 0 {
		return ""
	}
	return f.all[len(f.all)-1]
}

// find runs Peers until the test ends.
func find(t *testing.T, join, dir string) *found {
	t.Helper()
	log, _ := newLog(t)
	client, err := kube.Connect(as(t, "peers"), "sallyport-test", log)
	if err != nil {
		t.Fatal(err)
	}
	f := &found{}
	if f.Peers, err = kube.NewPeers(client, join, dir, log); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- f.Run(ctx, func(addrs []netip.Addr) {
			text := make([]string, len(addrs))
			for i, a := range addrs {
				text[i] = a.String()
			}
			f.mu.Lock()
			defer f.mu.Unlock()
			f.all = append(f.all, strings.Join(text, " "))
		})
	}()
	f.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(f.stop)
	return f
}

func TestGatewaysFindEachOther(t *testing.T) {
	api := admin(t)
	kubectl(t, gatewayPods, "apply", "-f", "-")
	member := func(name string) *corev1.Pod {
		p := pod(name, "")
		p.Labels = map[string]string{"app.kubernetes.io/name": "sallyport", "part": "gateway"}
		return p
	}
	must(t, api.addPod(t.Context(), member("gw-0"), "10.0.0.1", "10.0.0.1"))
	must(t, api.addPod(t.Context(), pod("other", ""), "10.0.0.9", "10.0.0.9"))
	pending := member("gw-1")
	must(t, api.create(t.Context(), "pods", "default", pending, pending)) // no host yet
	const join = "kube:default/app.kubernetes.io/name=sallyport,part=gateway"
	dir := t.TempDir()
	f := find(t, join, dir)
	eventually(t, "the first", func() bool { return f.last() == "10.0.0.1" })

	pending.Status.Phase, pending.Status.HostIP, pending.Status.HostIPs = corev1.PodRunning, "10.0.0.2", []corev1.HostIP{{IP: "10.0.0.2"}}
	must(t, api.status(t.Context(), "pods", "default", "gw-1", pending))
	eventually(t, "the second", func() bool { return f.last() == "10.0.0.1 10.0.0.2" })
	api.patch(t, "pods", "default", "gw-0", `{"status":{"phase":"Failed"}}`, "status") // its namesake comes elsewhere
	eventually(t, "only the second", func() bool { return f.last() == "10.0.0.2" })
	must(t, api.addPod(t.Context(), member("gw-2"), "10.0.0.3", "10.0.0.3"))
	eventually(t, "the third", func() bool { return f.last() == "10.0.0.2 10.0.0.3" })

	// Nobody is no news: the asker is one of them.
	api.remove(t, "pods", "default", "gw-1")
	eventually(t, "the third alone", func() bool { return f.last() == "10.0.0.3" })
	api.remove(t, "pods", "default", "gw-2")
	api.remove(t, "pods", "default", "gw-0")
	eventually(t, "the problem", func() bool {
		p := f.Problems()
		return len(p) == 1 && p[0].Object == "--join "+join && contains(p[0].Message, "no pod")
	})
	if f.last() != "10.0.0.3" {
		t.Errorf("told of nobody: %q", f.last())
	}
	must(t, api.addPod(t.Context(), member("gw-3"), "10.0.0.4", "10.0.0.4"))
	eventually(t, "the fourth, and no problem", func() bool { return f.last() == "10.0.0.4" && len(f.Problems()) == 0 })
	f.stop()

	// The last known ones serve while the server is away.
	up := down(t)
	f = find(t, join, dir)
	eventually(t, "the saved ones", func() bool { return f.last() == "10.0.0.4" })
	eventually(t, "the problem of the server", func() bool {
		return slices.ContainsFunc(f.Problems(), func(p gateway.Problem) bool { return contains(p.Object, server.URL) })
	})
	up()
	must(t, api.addPod(t.Context(), member("gw-4"), "10.0.0.5", "10.0.0.5"))
	eventually(t, "the fifth", func() bool { return f.last() == "10.0.0.4 10.0.0.5" && len(f.Problems()) == 0 })
	f.mu.Lock()
	if !slices.Equal(f.all, []string{"10.0.0.4", "10.0.0.4 10.0.0.5"}) {
		t.Errorf("told %q", f.all)
	}
	f.mu.Unlock()
	f.stop()

	// What was saved may be damaged.
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 1 {
		t.Fatalf("saved: %v, %v", files, err)
	}
	must(t, os.WriteFile(dir+"/"+files[0].Name(), []byte(`["10.0.0.`), 0o644))
	f = find(t, join, dir)
	eventually(t, "the server's own", func() bool { return f.last() == "10.0.0.4 10.0.0.5" })
}
