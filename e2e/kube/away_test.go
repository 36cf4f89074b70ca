package kube_test

import (
	"context"
	"testing"

	"github.com/sallyport/sallyport/gateway"
	"github.com/sallyport/sallyport/gateway/host"
	"github.com/sallyport/sallyport/gateway/kube"
)

// hostView runs a host's view of the API server, with its saved copy in the folder.
// What was applied is every view that it asked to be.
func hostView(t *testing.T, dir string) (v *host.View, applied func() []gateway.Snapshot, stop func()) {
	t.Helper()
	log, _ := newLog(t)
	client, err := kube.Connect(server.Kubeconfig, "sallyport-test", log)
	if err != nil {
		t.Fatal(err)
	}
	all := &view{}
	v = host.NewView(kube.NewSource(client, ""), dir, "gateway", func() {
		s, _ := v.Snapshot()
		all.deliver(s)
	}, log)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- v.Run(ctx) }()
	stopped := false
	stop = func() {
		cancel()
		if !stopped {
			stopped = true
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(stop)
	return v, func() []gateway.Snapshot { return all.since(0) }, stop
}

func TestTheSavedViewServesUntilTheServerAnswers(t *testing.T) {
	api := admin(t)
	api.addNode(t, 1)
	must(t, api.addPod(t.Context(), pod("a", "n1"), "10.244.1.2", "10.0.0.1"))
	addRoute(t, "payments", "192.0.2.10", "203.0.113.0/24")
	dir := t.TempDir()
	_, applied, stop := hostView(t, dir)
	eventually(t, "a view", func() bool { return len(applied()) > 0 })
	stop() // and saved

	up := down(t)
	v, applied, _ := hostView(t, dir)
	eventually(t, "the saved view", func() bool { return len(applied()) > 0 })
	if v.Live() {
		t.Error("a view of a server that is down is called live")
	}
	eventually(t, "the problem", func() bool { return len(v.Problems()) > 0 })
	if p := v.Problems()[0]; !contains(p.Object, server.URL) || !contains(p.Message, "start it") {
		t.Errorf("problem %+v", p)
	}
	up()
	eventually(t, "the live view", v.Live)
	eventually(t, "the problem's end", func() bool { return len(v.Problems()) == 0 })
	addRoute(t, "kyc", "192.0.2.11", "198.51.100.0/24")
	eventually(t, "a new route", func() bool { all := applied(); return routes(all[len(all)-1]) == "kyc payments" })
	for i, s := range applied() {
		if !contains(routes(s), "payments") || pods(s) != "a@n1" || nodes(s) != "n1" {
			t.Errorf("view %d lacks something: routes %q, pods %q, nodes %q", i, routes(s), pods(s), nodes(s))
		}
	}
}

func TestAServerThatGoesAndComesChangesNothing(t *testing.T) {
	api := admin(t)
	api.addNode(t, 1)
	must(t, api.addPod(t.Context(), pod("a", "n1"), "10.244.1.2", "10.0.0.1"))
	addRoute(t, "payments", "192.0.2.10", "203.0.113.0/24")
	v := watch(t, server.Kubeconfig, "n1")
	eventually(t, "the first view", func() bool { return pods(v.last()) == "a@n1" })
	before := v.delivered()

	up := down(t)
	eventually(t, "the problem", func() bool {
		message, is := v.problem("API server " + server.URL)
		return is && contains(message, "stays in force")
	})
	up()
	eventually(t, "the problem's end", func() bool { return len(v.Problems()) == 0 })
	if more := v.since(before); len(more) > 0 {
		t.Errorf("%d views although nothing changed: %+v", len(more), more)
	}
	if n := v.log.count("refuses connections"); n != 1 {
		t.Errorf("the same was said %d times", n)
	}
	if n := v.log.count("gives it again"); n != 1 {
		t.Errorf("its end was said %d times", n)
	}
	must(t, api.addPod(t.Context(), pod("b", "n1"), "10.244.1.3", "10.0.0.1"))
	eventually(t, "a pod made afterwards", func() bool { return pods(v.last()) == "a@n1 b@n1" })
}

// A store that was emptied, or another cluster's, has no nodes; this program runs on one.
func TestAServerWithoutNodesIsNotBelieved(t *testing.T) {
	api := admin(t)
	api.addNode(t, 1)
	must(t, api.addPod(t.Context(), pod("a", "n1"), "10.244.1.2", "10.0.0.1"))
	addRoute(t, "payments", "192.0.2.10", "203.0.113.0/24")
	v := watch(t, server.Kubeconfig, "")
	eventually(t, "the first view", func() bool { return routes(v.last()) == "payments" })
	api.remove(t, "nodes", "", "n1")
	object := "API server " + server.URL
	eventually(t, "the problem", func() bool { message, is := v.problem(object); return is && contains(message, "no node") })
	api.remove(t, "pods", "default", "a")
	kubectl(t, "", "delete", "egressroute", "payments")
	late := watch(t, server.Kubeconfig, "") // started in the middle of it
	eventually(t, "the problem of the late one", func() bool { _, is := late.problem(object); return is })
	if s := v.last(); routes(s) != "payments" || nodes(s) != "n1" || late.delivered() > 0 {
		t.Errorf("routes %q, nodes %q, and %d views of the late one", routes(s), nodes(s), late.delivered())
	}
	api.addNode(t, 2)
	eventually(t, "it is believed again", func() bool {
		return routes(v.last()) == "" && nodes(v.last()) == "n2" && nodes(late.last()) == "n2" && len(v.Problems()) == 0
	})
}
