package k8s

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/e2e/cluster"
	"github.com/sallyport/sallyport/e2e/lab"
)

// TestBoot has a node boot on which the agent comes late: until then the node is Ready,
// its pods are put off, and no packet of theirs goes past the rules that are not there.
func TestBoot(t *testing.T) {
	t.Parallel()
	w := start(t, cluster.Options{Nodes: 2})
	w.kubectl("label", "node", "--all", "steered=yes")
	w.install(slow, "gateway.replicas=1", "agent.nodeSelector.steered=yes")
	w.apply(payments)
	w.kubectl("wait", "egressroute/payments", "--for=condition=Programmed", "--timeout", patience.String())
	bank := w.deploy(app{name: "bank", to: partner, routes: "payments", connects: 20 * time.Millisecond})
	w.seen(bank, asVIP)
	for _, j := range w.everyNode() {
		w.gated(j)
	}

	booted := w.Lab.Others(w.holder(w.everyNode()...))[0]
	node := lab.NodeName(booted)
	w.kubectl("label", "node", node, "steered-")
	w.await(func() error {
		if _, err := w.status(lab.Agent, booted); err == nil {
			return fmt.Errorf("the agent of %s still runs", node)
		}
		return nil
	})
	_, err := w.PowerCut(booted)
	w.must(err)
	w.must(w.PowerOn(booted))
	// What an installer of the CNI does at each boot, before it can know of us.
	w.await(func() error {
		_, err := w.Run(booted, "sh", "-c", "cd /etc/cni/net.d && cp 10-cluster.conflist .new && mv .new 10-cluster.conflist")
		return err
	})
	w.await(func() error {
		events := w.kubectl("get", "events", "--field-selector", "reason=FailedCreatePodSandBox", "-o", "jsonpath={range .items[*]}{.involvedObject.name}: {.message}{\"\\n\"}{end}")
		if !strings.Contains(events, "sallyport: since the boot the node's rules are not in place yet") {
			return fmt.Errorf("no pod is put off; events:\n%s", events)
		}
		return nil
	})
	w.must(w.AwaitNodes(w.ctx))
	for _, p := range w.pods(bank) {
		if p.node == booted {
			if r, err := w.hear(p, time.Time{}); err == nil {
				t.Errorf("%s runs already, and was seen as %v", p.name, r.Sources())
			}
		}
	}
	w.noLeak()

	w.kubectl("label", "node", node, "steered=yes")
	w.await(w.ready(lab.Agent, booted))
	w.await(func() error { // at the addresses that they have now
		for _, p := range w.pods(bank) {
			if _, err := w.hear(p, time.Now()); err != nil {
				return err
			}
		}
		return nil
	})
	w.seen(bank, asVIP)
	for _, p := range w.pods(bank) {
		r := w.heardOf(p, time.Time{})
		for source := range r.Sources() {
			if source != theVIP {
				t.Errorf("%s was seen as %s", p.name, source)
			}
		}
	}
	w.noLeak()

	w.uninstall()
	for _, j := range w.everyNode() {
		left, err := w.Run(j, "find", "/etc/cni/net.d", "/opt/cni/bin", "/run", "-maxdepth", "1", "-name", "*sallyport*")
		w.must(err)
		if left != "" {
			t.Errorf("left on n%d:\n%s", j, left)
		}
	}
	w.remove(bank)
	w.seen(w.deploy(app{name: "shop", to: public, connects: 50 * time.Millisecond}), asNode)
	w.oneHolder()
}

// gated awaits that our configuration is in force on node j beside the CNI's own.
func (w *world) gated(j int) {
	w.t.Helper()
	w.await(func() error {
		files, err := w.Run(j, "ls", "/etc/cni/net.d", "/opt/cni/bin/sallyport-cni", "/run/sallyport/steering")
		if err == nil && !strings.Contains(files, "00-00-sallyport.conflist") {
			err = fmt.Errorf("n%d has only\n%s", j, files)
		}
		return err
	})
}
