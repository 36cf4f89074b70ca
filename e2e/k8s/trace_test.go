package k8s

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/sallyport/sallyport/e2e/lab"
	"github.com/sallyport/sallyport/trace"
)

// reflector is where the partner's `sallyport reflect` listens.
var reflector = fmt.Sprintf("%s:9873", public)

// thePartner is where steered pods connect to.
var thePartner = fmt.Sprintf("%s:%d", partner, lab.TCPPort)

// trace runs `kubectl sallyport trace`, whose exit status must be as its report says.
func (w *world) trace(pod, to string, args ...string) (trace.Report, error) {
	return walked(w.API.Kubectl(w.ctx, "", append([]string{"sallyport", "trace", pod, to, "-o", "json"}, args...)...))
}

// traceOn is what `sallyport trace` reports on a node, of its own two programs and without an API server.
func (w *world) traceOn(j int, pod, to string) (trace.Report, error) {
	return walked(w.Lab.Exec(lab.NodeName(j), w.program(), "trace", pod, to, "-o", "json"))
}

func walked(said string, err error) (trace.Report, error) {
	var r trace.Report
	if parsed := json.Unmarshal([]byte(said), &r); parsed != nil {
		return r, fmt.Errorf("trace said %q: %w", said, parsed)
	}
	if fine := r.First == 0 && r.Asked; fine != (err == nil) {
		return r, fmt.Errorf("trace of %s to %s ended with %w: %s", r.Pod, r.Destination, err, steps(r))
	}
	return r, nil
}

// sighting is what trace is to say: where it is wrong, as the first thing that is.
type sighting struct {
	verdict    trace.Verdict
	step, says string
}

func (f sighting) in(r trace.Report) bool {
	is := func(s trace.Step) bool {
		return s.Verdict == f.verdict && s.Name == f.step && strings.Contains(s.Found, f.says) && (s.Cure != "" || f.verdict == trace.OK || f.verdict == trace.Note)
	}
	if f.verdict == trace.Wrong {
		return r.First > 0 && is(r.Steps[r.First-1])
	}
	return slices.ContainsFunc(r.Steps, is)
}

func wrong(step, says string) sighting { return sighting{trace.Wrong, step, says} }

// finds makes the fault, again for as long as it is mended faster than looked at, until
// trace names it.
func (w *world) finds(pod, to string, want sighting, fault func(), args ...string) {
	w.t.Helper()
	w.await(func() error {
		if fault != nil {
			fault()
		}
		r, err := w.trace(pod, to, args...)
		if err == nil && !want.in(r) {
			err = fmt.Errorf("want %+v of %s to %s:%s", want, pod, to, steps(r))
		}
		return err
	})
}

// clear awaits that nothing is wrong and all could be asked.
func (w *world) clear(pod, to string) {
	w.t.Helper()
	w.await(func() error {
		r, err := w.trace(pod, to)
		if err == nil && (r.First != 0 || !r.Asked) {
			err = fmt.Errorf("%s to %s:%s", pod, to, steps(r))
		}
		return err
	})
}

func steps(r trace.Report) string {
	var b strings.Builder
	for i, s := range r.Steps {
		if s.Verdict != trace.OK || len(r.Steps) == i+1 {
			fmt.Fprintf(&b, "\n%d %s %s@%s: %s (%s)", i+1, s.Verdict, s.Name, s.Where, s.Found, s.Cure)
		}
	}
	return b.String()
}

// traced demands of `kubectl sallyport trace --probe` that it finds nothing wrong on the
// way of the app's pod, and that the outside saw the VIP, whoever is asked; then that what is
// made wrong is named, and nothing when it is over.
func (w *world) traced(a app) {
	w.t.Helper()
	w.plugin()
	ns, err := w.Lab.Namespace(lab.PartnerHost)
	w.must(err)
	partners := ns.Command(w.program(), "reflect", "--listen", reflector)
	w.must(partners.Start())
	defer func() {
		_ = partners.Process.Kill()
		_ = partners.Wait()
	}()
	all := w.pods(a)
	p := all[0]
	asTheVIP := sighting{trace.OK, "probe", "the outside saw " + theVIP.String() + ", the VIP"}
	w.finds(p.name, reflector, asTheVIP, nil, "--probe")
	w.clear(p.name, reflector)
	// Another program's ip rule goes first on the pod's node: what is marked gets no further.
	at, to := lab.NodeName(p.node), fmt.Sprintf("%s:%d", public, lab.TCPPort)
	_, err = w.Lab.Exec(at, "ip", "rule", "add", "priority", "50", "lookup", "main")
	w.must(err)
	w.finds(p.name, to, wrong("route", "the kernel sends mark"), nil)
	_, err = w.Lab.Exec(at, "ip", "rule", "del", "priority", "50")
	w.must(err)
	w.clear(p.name, to)
	w.finds(p.name, "198.51.100.1:443", wrong("destination", "EgressRoute payments: 198.51.100.1 is in none of its destinations 203.0.113.0/24"), nil)
	if w.Options.ProxyMode != "iptables" {
		return // what is made wrong has nothing to do with kube-proxy: once is enough
	}
	t := &tracer{world: w, all: all, to: to}
	t.decisions()
	t.kernels()
	t.programs()
	t.views()
}
