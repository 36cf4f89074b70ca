package k8s

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/e2e/cluster"
	"github.com/sallyport/sallyport/e2e/lab"
)

const payments = `apiVersion: sallyport.dev/v1alpha1
kind: EgressRoute
metadata: {name: payments}
spec:
  vip: 192.0.2.10
  namespaceSelector: {}
  destinations: [{cidr: 203.0.113.0/24}]
`

// TestInstallAnnotateObserveUninstall is what a platform engineer does on the first
// day, and on the last.
func TestInstallAnnotateObserveUninstall(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		mode     string
		settings []string
	}{{"iptables", []string{logged}}, {"nftables", []string{logged, thorough, faster}}} {
		t.Run("kube-proxy in mode "+c.mode, func(t *testing.T) {
			t.Parallel()
			firstDayAndLast(start(t, cluster.Options{ProxyMode: c.mode}), c.settings...)
		})
	}
}

func firstDayAndLast(w *world, settings ...string) {
	shop := w.deploy(app{name: "shop", to: public, connects: 20 * time.Millisecond})
	w.seen(shop, asNode)
	w.remove(shop) // what the CNI makes at a node's first pod is there by now
	before := w.hosts()

	w.install(append(settings, offered)...)
	w.apply(payments)
	w.kubectl("wait", "egressroute/payments", "--for=condition=Programmed", "--timeout", patience.String())
	shop = w.deploy(shop)
	w.first(shop, asNode)
	w.seen(shop, asNode)

	shop.routes = "payments"
	shop = w.deploy(shop)
	w.first(shop, asVIP) // also what a pod did before anybody could know it
	w.seen(shop, asVIP)
	w.told(shop)
	w.traced(shop)
	w.examined()
	w.asksForTheAllowlist()
	w.watched()
	w.counted(shop)
	w.recorded(shop)
	w.begun(shop, slices.Contains(settings, thorough))
	w.audit(false)

	bank := w.deploy(app{name: "bank", to: partner, routes: "payments",
		echo: 5 * time.Millisecond, connects: 20 * time.Millisecond, stream: 5 * time.Millisecond})
	w.first(bank, asVIP)
	w.seen(bank, asVIP)
	if slices.Contains(settings, faster) {
		w.beside(bank)
	}
	for _, p := range w.pods(bank) {
		r := w.heardOf(p, time.Time{})
		for source := range r.Sources() {
			if source != theVIP {
				w.t.Errorf("%s was seen as %s", p.name, source)
			}
		}
		if r.Broken != "" {
			w.t.Errorf("the stream of %s broke: %s", p.name, r.Broken)
		}
	}
	w.remove(bank)
	w.noLeak()

	shop.routes = ""
	w.deploy(shop)
	w.first(shop, asNode)
	w.seen(shop, asNode)

	shop.routes = "payments"
	w.deploy(shop)
	w.seen(shop, asVIP)
	w.waitsForTheAllowlist(func() { w.kubectl("delete", "egressroute", "payments") })
	w.seen(shop, asNode)

	w.uninstall()
	w.seen(shop, asNode)
	w.remove(shop)
	w.recordsStay()
	w.leftNothing(before)
	w.oneHolder()
}

// told awaits that the route and its pods say in the API what is so.
func (w *world) told(a app) {
	w.t.Helper()
	var route struct {
		Metadata struct{ Generation int64 }
		Status   struct {
			Holder             string
			Pods               int
			ObservedGeneration int64
		}
	}
	w.await(func() error {
		w.must(json.Unmarshal([]byte(w.kubectl("get", "egressroute", "payments", "-o", "json")), &route))
		line := w.kubectl("get", "egressroute", "payments")
		for _, word := range []string{"VIP", "HOLDER", "PODS", "READY", "AGE", theVIP.String(), lab.NodeName(w.holder(w.everyNode()...)), "True"} {
			if !strings.Contains(line, word) {
				return fmt.Errorf("kubectl get egressroute shows no %s:\n%s", word, line)
			}
		}
		switch {
		case route.Status.Pods != a.replicas:
			return fmt.Errorf("the route's status has %d pods, want %d", route.Status.Pods, a.replicas)
		case route.Status.ObservedGeneration != route.Metadata.Generation:
			return fmt.Errorf("status of generation %d, the route is of %d", route.Status.ObservedGeneration, route.Metadata.Generation)
		}
		return nil
	})
	for _, kind := range []string{"EgressRoute", "Pod"} {
		w.await(func() error {
			events := w.kubectl("get", "events", "-A", "--field-selector", "involvedObject.kind="+kind, "-o", "custom-columns=BY:.reportingComponent,REASON:.reason,MESSAGE:.message,SOURCE:.source.component")
			if !strings.Contains(events, "sallyport") {
				return fmt.Errorf("no event of ours on any %s:\n%s", kind, events)
			}
			return nil
		})
	}
}

// hosts is the state of every node's kernel.
func (w *world) hosts() []lab.HostState {
	w.t.Helper()
	var all []lab.HostState
	for j := 1; j <= w.Lab.Options.Nodes; j++ {
		s, err := w.Lab.HostState(lab.NodeName(j))
		w.must(err)
		all = append(all, s)
	}
	return all
}

// leftNothing awaits that the nodes are as they were, and that nothing of ours is in the API.
func (w *world) leftNothing(before []lab.HostState) {
	w.t.Helper()
	for _, j := range w.everyNode() {
		w.await(func() error {
			after, err := w.Lab.HostState(lab.NodeName(j))
			if err != nil {
				return err
			}
			if d := before[j-1].Diff(after); d != "" {
				return fmt.Errorf("n%d is not as it was:\n%s", j, d)
			}
			left, err := w.Run(j, "find", "/var/lib", "-maxdepth", "1", "-name", "sallyport")
			if err == nil && left != "" {
				err = fmt.Errorf("left on n%d: %s", j, left)
			}
			return err
		})
	}
	const kinds = "pods,services,jobs,daemonsets,statefulsets,poddisruptionbudgets,secrets,serviceaccounts,roles,rolebindings,clusterroles,clusterrolebindings"
	w.await(func() error {
		if left := w.kubectl("get", kinds, "-A", "-l", "app.kubernetes.io/name=sallyport", "-o", "name"); left != "" {
			return fmt.Errorf("left in the API: %s", left)
		}
		return nil
	})
}
