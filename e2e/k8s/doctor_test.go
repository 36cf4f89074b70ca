package k8s

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/sallyport/sallyport/doctor"
	"github.com/sallyport/sallyport/e2e/lab"
)

// doctor is what `kubectl sallyport doctor` reports. Its exit status must be as that says.
func (w *world) doctor(args ...string) (doctor.Report, error) {
	w.t.Helper()
	w.plugin()
	return reported(w.API.Kubectl(w.ctx, "", append([]string{"sallyport", "doctor", "-o", "json"}, args...)...))
}

// doctorOn is what `sallyport doctor` reports on a node, of its own two programs and without an API server.
func (w *world) doctorOn(j int) (doctor.Report, error) {
	w.t.Helper()
	return reported(w.Lab.Exec(lab.NodeName(j), w.program(), "doctor", "-o", "json"))
}

func reported(said string, err error) (doctor.Report, error) { return lab.Diagnosis([]byte(said), err) }

// ask awaits that doctor's report holds. What a program sets itself it puts back from time to
// time, so the fault is made for each look.
func (w *world) ask(fault func(), holds func(doctor.Report) error, args ...string) {
	w.t.Helper()
	w.await(func() error {
		fault()
		r, err := w.doctor(args...)
		if err == nil {
			if err = holds(r); err != nil {
				err = fmt.Errorf("%w: %+v", err, r)
			}
		}
		return err
	})
}

func nothing() {}

// well is a report of all programs in which nothing is found.
func (w *world) well(r doctor.Report) error {
	if len(r.Findings) > 0 || len(r.Silent) > 0 || r.Hosts != 2*len(w.everyNode()) {
		return errors.New("not all is well")
	}
	return nil
}

// suffers demands that doctor names each of what ails, all at a time, and nothing once they are mended.
func (w *world) suffers(all []ails) {
	w.t.Helper()
	sh := func(host, command string) {
		_, err := w.Lab.Exec(host, "sh", "-ec", command)
		w.must(err)
	}
	w.ask(func() {
		for _, a := range all {
			sh(a.host, a.fault)
		}
	}, func(r doctor.Report) error {
		var errs []error
		for _, a := range all {
			if !a.finding.in(r) {
				errs = append(errs, fmt.Errorf("nothing of %+v", a.finding))
			}
		}
		return errors.Join(errs...)
	})
	for _, a := range all {
		sh(a.host, a.mend)
	}
	w.ask(nothing, w.well)
}

// examined demands of `kubectl sallyport doctor` that it finds every node well, names
// what is then made wrong, where it is, and finds all well again.
func (w *world) examined() {
	w.t.Helper()
	w.strictARP(1, 2) // as kube-proxy's strict ARP has it
	w.ask(nothing, w.well)
	w.strictARP(0, 0)
	if w.Options.ProxyMode != "iptables" {
		return // what is made wrong has nothing to do with kube-proxy: once is enough
	}
	others := w.Lab.Others(w.holder(w.everyNode()...))
	one, other := lab.NodeName(others[0]), lab.NodeName(others[1])
	w.apply(nowhere)
	w.ask(nothing, finding{doctor.Error, "problems", "", "EgressRoute nowhere", "start the gateways with --vip 192.0.2.99"}.told)
	w.kubectl("delete", "egressroute", "nowhere")
	w.suffers(ofANode(one))
	w.suffers(ofTheWay(one, other, w.everyNode()))
	w.missed()
}

func (w *world) strictARP(ignore, announce int) {
	w.t.Helper()
	for _, j := range w.everyNode() {
		_, err := w.Lab.Exec(lab.NodeName(j), "sysctl", "-qw", fmt.Sprintf("net.ipv4.conf.all.arp_ignore=%d", ignore), fmt.Sprintf("net.ipv4.conf.all.arp_announce=%d", announce))
		w.must(err)
	}
}

// missed has fewer gateways than there are to be: with one less nothing is broken, and
// something is amiss; one alone is no quorum.
func (w *world) missed() {
	w.t.Helper()
	scale := func(n int) {
		w.kubectl("-n", namespace, "scale", "statefulset", "sallyport-gateway", fmt.Sprintf("--replicas=%d", n))
	}
	n := len(w.everyNode())
	scale(n - 1)
	w.ask(nothing, fewer(n-1, n).told)
	scale(1)
	w.ask(nothing, finding{doctor.Error, "holder", "", "VIP " + theVIP.String(), fmt.Sprintf("nobody holds it: at most 1 of %d gateways hear each other", n)}.told)
	scale(n)
	w.ask(nothing, w.well)
}

func fewer(n, of int) finding {
	return finding{doctor.Warning, "holder", "", "VIP " + theVIP.String(), fmt.Sprintf("%d of %d gateways are heard", n, of)}
}

func silent(r doctor.Report, program, where, why string) error {
	if !slices.ContainsFunc(r.Silent, func(s doctor.Silent) bool {
		return s.Program == program && s.Where == where && s.Why != "" && strings.Contains(s.Why, why)
	}) {
		return fmt.Errorf("the %s on %q does not count as silent", program, where)
	}
	return nil
}
