package k8s

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/e2e/cluster"
	"github.com/sallyport/sallyport/e2e/lab"
)

const kubeconfigEnv = "E2E_KUBECONFIG"

var (
	theVIP  = netip.MustParseAddr("192.0.2.10")
	partner = lab.PartnerAddr // admits only the VIP
	public  = lab.PublicAddr  // admits everybody
)

// patience is how long a change may take before the scenario gives up, on a machine
// with two cores that does other things as well. What is measured is in the benchmarks.
const patience = 2 * time.Minute

// lookEvery is how often a condition is looked at: each time costs the cluster's processors
// a program, or requests to all of its nodes.
const lookEvery = 200 * time.Millisecond

// namespace of the release, which is called "sallyport".
const namespace = "sallyport"

// world is a cluster, with everything watched that must hold in every scenario.
type world struct {
	*cluster.Cluster
	t   *testing.T
	ctx context.Context
	arp *lab.ARPWatch
}

// start gives the scenario a cluster of its own. When it fails, a report is left.
func start(t *testing.T, o cluster.Options) *world {
	t.Helper()
	if os.Getenv(kubeconfigEnv) != "" {
		t.Skip("needs a cluster whose nodes and network it may break: unset " + kubeconfigEnv)
	}
	if os.Getenv(cluster.ProgramsEnv) == "" {
		t.Skipf("needs the Kubernetes programs: `make e2e`, or set %s to what `go run ./e2e/cluster/cmd/cluster bin` prints", cluster.ProgramsEnv)
	}
	o.Prefix = lab.TestPrefix(t, "spk")
	o.Images = append(o.Images, image)
	o.Progress = t.Output()
	// Not the test's own context, which ends before its clean-up.
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	c, err := cluster.Up(ctx, o)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	w := &world{Cluster: c, t: t, ctx: ctx}
	frames, err := os.CreateTemp("", "sallyport-segment-*.pcap")
	w.must(err)
	w.must(frames.Close())
	// The bridge itself sees what passes between any two of its ports.
	_, err = c.Lab.Capture(lab.Switch, "outside", frames.Name())
	t.Cleanup(func() {
		defer cancel()
		if t.Failed() {
			w.report(frames.Name())
		}
		if err := c.Close(); err != nil {
			t.Errorf("remove the cluster: %v", err)
		}
		if err := os.Remove(frames.Name()); err != nil && !os.IsNotExist(err) {
			t.Error(err)
		}
	})
	w.must(err)
	w.arp, err = c.Lab.WatchARP(5 * time.Millisecond)
	w.must(err)
	return w
}

// report leaves all that can be known of the cluster in a folder of the scenario's name.
func (w *world) report(frames string) {
	dir := filepath.Join(cmp.Or(os.Getenv("E2E_REPORTS"), filepath.Join(os.TempDir(), "sallyport-reports")),
		strings.ReplaceAll(w.t.Name(), "/", "-")+time.Now().Format("-0102-150405"))
	if err := w.WriteReport(w.ctx, dir); err != nil {
		w.t.Logf("the report is not whole: %v", err)
	}
	if err := moveFile(frames, filepath.Join(dir, "segment.pcap")); err != nil {
		w.t.Logf("the report has no capture: %v", err)
	}
	w.t.Logf("report: %s", dir)
}

// moveFile copies where the folders are on different file systems.
func moveFile(from, to string) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return cmp.Or(os.WriteFile(to, text, 0o644), os.Remove(from))
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) await(condition func() error) {
	w.t.Helper()
	w.must(lab.AwaitEvery(w.ctx, lookEvery, patience, condition))
}

// kubectl runs kubectl as administrator and gives what it says.
func (w *world) kubectl(args ...string) string {
	w.t.Helper()
	out, err := w.API.Kubectl(w.ctx, "", args...)
	w.must(err)
	return strings.TrimSpace(out)
}

// apply makes objects, or changes them.
func (w *world) apply(objects string) {
	w.t.Helper()
	_, err := w.API.Kubectl(w.ctx, objects, "apply", "-f", "-")
	w.must(err)
}

// install installs the chart as a user does, and waits as he does; settings are
// further values, "agent.maxUnavailable=1".
func (w *world) install(settings ...string) { w.t.Helper(); w.helm("install", settings...) }

// helm installs or upgrades the release. Helm does not wait for as many agents as may be
// unavailable, one of three; on a node without an agent nothing is kept back.
func (w *world) helm(verb string, settings ...string) {
	w.t.Helper()
	args := []string{verb, "sallyport", "../../charts/sallyport", "--namespace", namespace, "--create-namespace", "--wait", "--timeout", "180s",
		"--set", "gateway.vips={" + theVIP.String() + "}", "--set", "image.repository=" + cluster.Repository, "--set", "image.tag=" + cluster.Tag}
	for _, s := range settings {
		args = append(args, "--set", s)
	}
	if verb == "upgrade" {
		args = slices.DeleteFunc(args, func(s string) bool { return s == "--create-namespace" })
	}
	_, err := w.API.Helm(w.ctx, args...)
	w.must(err)
	for _, j := range w.everyNode() {
		w.await(w.ready(lab.Agent, j))
	}
}

func (w *world) uninstall() {
	w.t.Helper()
	_, err := w.API.Helm(w.ctx, "uninstall", "sallyport", "--namespace", namespace, "--wait", "--timeout", "300s")
	w.must(err)
}

// holder awaits that one gateway among the nodes says that it holds the VIP, and gives
// its node. It asks the gateways, not the API server.
func (w *world) holder(among ...int) int {
	w.t.Helper()
	holder := 0
	w.await(func() error {
		for _, j := range among {
			s, err := w.status(lab.Gateway, j)
			if err == nil && len(s.VIPs) > 0 && s.VIPs[0].Held {
				holder = j
				return nil
			}
		}
		return fmt.Errorf("nobody among nodes %v holds the VIP", among)
	})
	return holder
}

// noLeak demands that no packet came to the partner with a source other than the VIP.
func (w *world) noLeak() {
	w.t.Helper()
	refused, err := w.Lab.Partner.Refused()
	w.must(err)
	if len(refused) > 0 {
		w.t.Errorf("packets with a wrong source at the partner: %+v", refused)
	}
}

// oneHolder demands that no two nodes answered for the VIP at a time. Frames that only
// came in another order than a busy machine should have sent them are told.
func (w *world) oneHolder() {
	w.t.Helper()
	if v := w.arp.Proven(); len(v) > 0 {
		w.t.Errorf("two holders on the partner's segment: %v (%d times)", v[0], len(v))
	}
	if v := w.arp.Violations(); len(v) > 0 {
		w.t.Logf("words for the VIP between those of another node: %v (%d times)", v[0], len(v))
	}
}
