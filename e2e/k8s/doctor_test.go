package k8s

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/sallyport/sallyport/doctor"
	"github.com/sallyport/sallyport/e2e/lab"
)

// examined demands of `kubectl sallyport doctor` that it finds every node well, and
// names what is then made wrong on one, where it is.
func (w *world) examined() {
	w.t.Helper()
	w.plugin()
	// What a program sets itself it puts back from time to time, so it is broken for each look.
	ask := func(fault func(), holds func(doctor.Report) bool) {
		w.t.Helper()
		w.await(func() error {
			fault()
			said, err := w.API.Kubectl(w.ctx, "", "sallyport", "doctor", "-o", "json")
			var r doctor.Report
			if parsed := json.Unmarshal([]byte(said), &r); parsed != nil {
				return fmt.Errorf("kubectl sallyport doctor said %q: %w", said, parsed)
			}
			if r.Errors() != (err != nil) || !holds(r) {
				return fmt.Errorf("kubectl sallyport doctor (%v) found: %+v", err, r)
			}
			return nil
		})
	}
	all, node := 2*len(w.everyNode()), lab.NodeName(w.everyNode()[1])
	well := func(r doctor.Report) bool { return len(r.Findings) == 0 && len(r.Silent) == 0 && r.Hosts == all }
	ask(func() {}, well)
	for _, test := range []struct{ setting, bad, good, check, cure string }{
		{"net.ipv4.conf.sally0.rp_filter", "1", "2", "problems", "set it to 2"},
		{"net.ipv4.conf.eth0.arp_ignore", "2", "0", "arp", "to 0 or 1"},
	} {
		set := func(value string) func() {
			return func() {
				_, err := w.Lab.Exec(node, "sysctl", "-w", test.setting+"="+value)
				w.must(err)
			}
		}
		ask(set(test.bad), func(r doctor.Report) bool {
			return slices.ContainsFunc(r.Findings, func(f doctor.Finding) bool {
				return f.Check == test.check && f.Severity == doctor.Error && f.Where == node &&
					f.Object == "sysctl "+test.setting && strings.Contains(f.Found+f.Cure, test.cure)
			})
		})
		ask(set(test.good), well)
	}
}
