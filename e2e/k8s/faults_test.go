package k8s

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/sallyport/sallyport/doctor"
	"github.com/sallyport/sallyport/e2e/chromium"
	"github.com/sallyport/sallyport/e2e/cluster"
	"github.com/sallyport/sallyport/e2e/lab"
	"github.com/sallyport/sallyport/e2e/prometheus"
)

// faults are what happens to clusters. Each strikes under traffic, sees that what is to
// go on does, and mends; the holder is the node that held the VIP before.
var faults = []struct {
	name   string
	strike func(w *guarded, l *load, holder int)
}{
	{"power cut of the holder's node", powerCut},
	{"kubelet dead, node alive", kubeletDead},
	{"gateway pod deleted", gatewayDeleted},
	{"node drained, removed and added", nodeReplaced},
	{"API server down during a failover", failoverAlone},
	{"etcd restarted", etcdRestarted},
	{"helm upgrade of everything", helmUpgrade},
}

// TestFaults lets one thing after another happen to one cluster. The traffic of steered
// pods goes on, connections live, no packet shows another source than the VIP, and never
// do two hold it. Each leaves the cluster healthy, and pods made after it are steered. The
// partner admits whom its firewall was told of, all the time.
func TestFaults(t *testing.T) {
	chromium.Need(t)
	prometheus.Need(t, "prometheus")
	t.Parallel()
	w := start(t, cluster.Options{})
	w.apply(operators)
	w.install(append([]string{slow, offered}, observed...)...)
	g := w.guard()
	g.holds("partners") // nobody has a VIP yet
	w.apply(payments)
	w.kubectl("wait", "egressroute/payments", "--for=condition=Programmed", "--timeout", patience.String())
	g.holds("partners", theVIP.String())
	g.nodes(w.everyNode(), w.everyNode()...)
	for _, f := range faults {
		whole := t.Run(f.name, func(t *testing.T) {
			w := w.in(t)
			w.healthy()
			l := w.load()
			f.strike(g.in(w), l, w.holder(w.everyNode()...))
			w.healthy()
			w.noLeak()
			w.oneHolder()
			w.remove(l.app)
		})
		if !whole {
			return // the report is to show the cluster as it is now
		}
	}
}

func powerCut(w *guarded, l *load, holder int) {
	rest := w.Lab.Others(holder)
	w.stopped(rest[0], rest[1])
	v := w.viewed(l, rest[0])
	v.admitted(rest[1])
	m := w.monitored()
	_, err := w.PowerCut(holder)
	w.must(err)
	heir := w.holder(rest...)
	l.goesOn(rest...)
	w.reported(heir)
	v.holder()
	m.misses(heir)
	w.lost(holder)
	w.must(w.PowerOn(holder))
	w.healthy()
	if now := w.holder(w.everyNode()...); now != heir {
		w.t.Errorf("n%d took over from n%d when n%d came back: a holder is to stay", now, heir, holder)
	}
	l.goesOn(rest...)
	w.back(l.app)
	w.seen(l.app, asVIP)
	l.kept(rest...)
	w.noLeak()
	v.mended()
	m.mended(heir)
	m.drawn(v.browser)
	m.keptOut(l.pods[rest[0]])
	w.kubectl("delete", "egressroute", "guarded")
	w.claimed(m, l.pods[rest[0]])
}

// A dead kubelet says nothing of the node's pods: nobody may end their connections, or
// put another gateway in the place of one that works.
func kubeletDead(w *guarded, l *load, holder int) {
	node := lab.NodeName(holder)
	pods := func() string {
		return w.kubectl("get", "pods", "-n", namespace, "-l", "app.kubernetes.io/name=sallyport", "--sort-by", ".metadata.name", "-o", "jsonpath={.items[*].metadata.uid}")
	}
	before := pods()
	w.must(w.KillOn(holder, cluster.Kubelet))
	w.kubectl("wait", "node", node, "--for=condition=Ready=Unknown", "--timeout", patience.String())
	l.goesOn(w.everyNode()...)
	w.reported(holder)
	w.must(w.StartOn(holder, cluster.Kubelet))
	w.healthy()
	if after := pods(); after != before {
		w.t.Errorf("our pods are other ones than before: %s, %s", before, after)
	}
	if now := w.holder(w.everyNode()...); now != holder {
		w.t.Errorf("n%d holds the VIP instead of n%d", now, holder)
	}
	l.goesOn(w.everyNode()...)
	l.untouched(w.everyNode()...)
	w.unclaimed()
}

func gatewayDeleted(w *guarded, l *load, holder int) {
	s, err := w.status(lab.Gateway, holder)
	w.must(err)
	w.kubectl("delete", "pod", "-n", namespace, s.Name)
	heir := w.holder(w.Lab.Others(holder)...)
	l.goesOn(w.everyNode()...)
	w.reported(heir)
	w.healthy()
	l.kept(w.everyNode()...)
}

// Drained is who has no pod but those of DaemonSets: the gateway that belongs there waits.
// Then the node leaves the cluster as it leaves every cluster, and its kubelet joins again.
func nodeReplaced(w *guarded, l *load, holder int) {
	node, rest := lab.NodeName(holder), w.Lab.Others(holder)
	w.kubectl("drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout", patience.String())
	heir := w.holder(rest...)
	l.goesOn(rest...)
	w.kubectl("rollout", "status", "deployment", l.app.name, "--timeout", patience.String())
	w.first(l.app, asVIP) // also of the pods that the drain moved elsewhere
	w.reported(heir)
	w.ask(nothing, func(r doctor.Report) error { return silent(r, "gateway", "", "no node takes it") })
	w.kubectl("delete", "node", node)
	w.nodeless(holder)
	w.nodes(w.everyNode(), rest...)
	l.goesOn(rest...)
	w.must(errors.Join(w.KillOn(holder, cluster.Kubelet), w.StartOn(holder, cluster.Kubelet)))
	w.must(w.AwaitRegistered(w.ctx, holder))
	w.nodes(w.everyNode(), w.everyNode()...)
	w.healthy()
	w.ask(nothing, w.well)
	l.goesOn(rest...)
	l.kept(rest...)
}

// With the API server gone a failover is what it always is, and a gateway or an agent
// that starts works from what its last run saved. An agent that has saved nothing takes nothing away.
func failoverAlone(w *guarded, l *load, holder int) {
	rest := w.Lab.Others(holder)
	w.otherVersion(holder)
	w.must(w.API.Kill(cluster.KubeAPIServer))
	_, err := w.PowerCut(holder)
	w.must(err)
	w.holder(rest...)
	l.goesOn(rest...)
	l.kept(rest...)
	for _, role := range []lab.Role{lab.Gateway, lab.Agent} {
		w.aged(role, rest[0])
	}
	// Neither does the partner forget a node, even if its host boots.
	w.stop("cluster")
	w.boot()
	w.sync("cluster")
	w.nodes(rest, w.everyNode()...)
	for i, j := range rest {
		before := time.Now()
		found, forget := saved(j, lab.Agent), ""
		if i == 0 {
			found, forget = none(j, lab.Agent), "rm /var/lib/sallyport/agent-*.json; "
		}
		_, err := w.Run(j, "sh", "-ec", forget+"kill -9 $(pgrep -f '^[^ ]*sallyport (gateway|agent) ')")
		w.must(err)
		w.restarted(lab.Gateway, j, before, false)
		if i > 0 {
			w.restarted(lab.Agent, j, before, false)
		}
		w.onNode(j, saved(j, lab.Gateway), found)
		if i > 0 {
			w.savedPath(l.pods[j])
		}
		w.holder(rest...)
		l.goesOn(rest...)
	}
	w.must(w.API.Start(cluster.KubeAPIServer))
	w.must(w.API.AwaitReady(w.ctx))
	for _, program := range []string{cluster.ControllerManager, cluster.Scheduler} {
		// Their watches would come back by themselves, within a minute.
		w.must(errors.Join(w.API.Kill(program), w.API.Start(program)))
	}
	w.must(w.PowerOn(holder))
	w.healthy()
	w.twoVersions()
	l.goesOn(rest...)
	w.back(l.app)
	w.seen(l.app, asVIP)
	l.kept(rest...)
	w.noLeak()
}

func etcdRestarted(w *guarded, l *load, _ int) {
	w.must(w.API.Kill(cluster.Etcd))
	w.await(func() error {
		if _, err := w.API.Kubectl(w.ctx, "", "get", "--raw", "/readyz", "--request-timeout=2s"); err == nil {
			return fmt.Errorf("the API server has not missed etcd yet")
		}
		return nil
	})
	l.goesOn(w.everyNode()...)
	w.must(w.API.Start(cluster.Etcd))
	w.must(w.API.AwaitReady(w.ctx))
	w.healthy()
	l.goesOn(w.everyNode()...)
	l.untouched(w.everyNode()...)
}

func helmUpgrade(w *guarded, l *load, _ int) {
	for _, j := range w.everyNode() {
		w.use(j, image)
	}
	before := time.Now()
	w.helm("upgrade", append([]string{slow, offered, urgent, printed, "logLevel=debug"}, observed...)...)
	for _, j := range w.everyNode() {
		w.restarted(lab.Gateway, j, before, true)
		w.restarted(lab.Agent, j, before, true)
	}
	w.healthy()
	w.unurgent()
	w.prints(l.pods[1], l.app.to)
	l.goesOn(w.everyNode()...)
	l.kept(w.everyNode()...)
}
