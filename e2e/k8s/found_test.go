package k8s

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sallyport/sallyport/doctor"
	"github.com/sallyport/sallyport/e2e/cluster"
	"github.com/sallyport/sallyport/e2e/lab"
	"github.com/sallyport/sallyport/trace"
)

// What doctor is to find in the middle of faults, beside what is looked at there anyway.

// stopped has an agent and a standby answer nobody any more, and demands that both are named, and
// that the standby lags. The election, whose lease is of seconds here, may miss it or not yet.
func (w *world) stopped(agent, standby int) {
	w.t.Helper()
	s, err := w.status(lab.Gateway, standby)
	w.must(err)
	signal := func(name string) {
		for role, j := range map[lab.Role]int{lab.Agent: agent, lab.Gateway: standby} {
			_, err := w.Run(j, "sh", "-c", fmt.Sprintf("kill -%s $(pgrep -f '^[^ ]*sallyport %s ')", name, role))
			w.must(err)
		}
	}
	signal("STOP")
	w.ask(nothing, func(r doctor.Report) error {
		const why = "no answer within 2s"
		return errors.Join(silent(r, "agent", lab.NodeName(agent), why), silent(r, "gateway", lab.NodeName(standby), why),
			finding{doctor.Warning, "replication", anywhere, "VIP " + theVIP.String(), s.Name + " lags by "}.told(r))
	}, "--timeout", "2s")
	signal("CONT")
	w.ask(nothing, w.well)
}

// lost demands that the programs of a node that is gone are named.
func (w *world) lost(j int) {
	w.t.Helper()
	n := len(w.everyNode())
	w.ask(nothing, func(r doctor.Report) error {
		return errors.Join(silent(r, "agent", lab.NodeName(j), ""), silent(r, "gateway", lab.NodeName(j), ""), fewer(n-1, n).told(r))
	}, "--timeout", "3s")
}

// claimed has another host claim the VIP, and demands that everybody is told which, who asks why
// a pod's packets go astray as well. They are for a minute: that it is forgotten is looked at later, by unclaimed.
func (w *world) claimed(m *monitor, p pod) {
	w.t.Helper()
	holder := w.holder(w.everyNode()...)
	claim := func() string {
		from, err := w.Lab.Claim(cluster.ControlPlane, theVIP)
		w.must(err)
		return "the host with MAC " + from.String() + " on eth0 claims it as well"
	}
	says := claim()
	w.ask(func() { claim() }, finding{doctor.Error, "problems", lab.NodeName(holder), "VIP " + theVIP.String(), says}.told)
	w.finds(p.name, thePartner, wrong("address", says), func() { claim() })
	m.until(fmt.Sprintf(`sallyport_vip_duplicate_owners_total{vip="%s",instance="%s:9871"} > 0`, theVIP, w.Lab.NodeIP(holder)))
	m.until(fmt.Sprintf(`ALERTS{alertname="SallyportDuplicateOwner",alertstate="firing",vip="%s"}`, theVIP))
	conflict := w.programmed("False", "VIPConflict", says)
	w.await(func() error { // a claim is told for a minute, which may be over by now
		claim()
		return conflict()
	})
	w.await(func() error {
		if told := w.kubectl("get", "events", "-A", "--field-selector", "involvedObject.kind=EgressRoute,reason=VIPConflict"); !strings.Contains(told, says) {
			return fmt.Errorf("no event tells of it: %s", told)
		}
		return nil
	})
}

func (w *world) unclaimed() {
	w.t.Helper()
	w.await(w.programmed("True", "Programmed", ""))
	w.ask(nothing, w.well)
}

// programmed is satisfied when the route's condition is so.
func (w *world) programmed(status, reason, says string) func() error {
	return func() error {
		is := w.kubectl("get", "egressroute", "payments", "-o", `jsonpath={range .status.conditions[?(@.type=="Programmed")]}{.status} {.reason} {.message}{end}`)
		if !strings.HasPrefix(is, status+" "+reason+" ") || !strings.Contains(is, says) {
			return fmt.Errorf("Programmed is %s, want %s %s with %q", is, status, reason, says)
		}
		return nil
	}
}

// onNode awaits what doctor is to find there, asked on the node itself.
func (w *world) onNode(j int, all ...finding) {
	w.t.Helper()
	w.await(func() error {
		r, err := w.doctorOn(j)
		for _, f := range all {
			err = errors.Join(err, f.told(r))
		}
		if err != nil {
			err = fmt.Errorf("%w: %+v", err, r)
		}
		return err
	})
}

// savedPath demands that trace, asked on the node of a pod, says that the way is that of a saved view.
func (w *world) savedPath(p pod) {
	w.t.Helper()
	w.await(func() error {
		r, err := w.traceOn(p.node, p.name, thePartner)
		if want := (sighting{trace.Note, "agent's view", "it is the view that an earlier run saved"}); err == nil && !want.in(r) {
			err = fmt.Errorf("want %+v:%s", want, steps(r))
		}
		return err
	})
}

// nodeless demands that the agent says itself that its Node is gone; the gateway may have left with the drain.
func (w *world) nodeless(j int) {
	w.t.Helper()
	w.onNode(j, finding{doctor.Error, "problems", "", "Node " + lab.NodeName(j), "the --node-ip of this agent"})
}

// saved is what a program is found to work from without an API server, and none what it is
// without a view that it saved.
func saved(j int, program lab.Role) finding {
	return finding{doctor.Warning, "view", lab.NodeName(j), string(program), "works from the view that it saved"}
}

func none(j int, program lab.Role) finding {
	return finding{doctor.Error, "view", lab.NodeName(j), string(program), "has no view yet"}
}

// another is a version that the program under test has not.
const another = "another"

// otherVersion has node j start another version of the program from now on.
func (w *world) otherVersion(j int) {
	w.t.Helper()
	dir := w.t.TempDir()
	file := filepath.Join(dir, "other")
	out, err := exec.CommandContext(w.ctx, "go", "build", "-ldflags", "-X main.release="+another, "-o", file, "github.com/sallyport/sallyport/cmd/sallyport").CombinedOutput()
	if err != nil {
		w.t.Fatalf("build another version: %v: %s", err, out)
	}
	other, err := cluster.SallyportImage(w.ctx, dir, file, w.t.Output())
	w.must(err)
	w.use(j, other)
}

// use has node j start its programs from an image.
func (w *world) use(j int, image string) {
	w.t.Helper()
	_, err := w.Run(j, "ctr", "-n", "k8s.io", "images", "import", image)
	w.must(err)
}

// twoVersions demands that an upgrade that stopped half way is named.
func (w *world) twoVersions() {
	w.t.Helper()
	said, err := exec.CommandContext(w.ctx, w.program(), "version").Output()
	w.must(err)
	both := []string{strings.Fields(string(said))[1], another}
	slices.Sort(both)
	w.ask(nothing, finding{doctor.Warning, "version", "", "versions", strings.Join(both, ", ") + " run at the same time"}.told)
}

// urgent has gateways run in real time, which a pod gets where the kernel gives it to cgroups.
const urgent = "gateway.priority=realtime"

// unurgent demands that gateways that asked for real time and did not get it are named, and that
// nothing else is found.
func (w *world) unurgent() {
	w.t.Helper()
	w.ask(nothing, func(r doctor.Report) error {
		refused := 0
		var errs []error
		for _, j := range w.everyNode() {
			s, err := w.status(lab.Gateway, j)
			if errs = append(errs, err); s.PriorityRefused {
				refused++
				errs = append(errs, finding{doctor.Warning, "priority", lab.NodeName(j), "scheduling", "real time refused"}.told(r))
			}
		}
		if refused != len(r.Findings) {
			errs = append(errs, fmt.Errorf("%d gateways were refused real time", refused))
		}
		return errors.Join(errs...)
	})
}
