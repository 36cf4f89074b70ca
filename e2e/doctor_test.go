package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/doctor"
	"github.com/sallyport/sallyport/e2e/lab"
)

// doctor runs the command, whose exit status must be as its report says.
func (w *tracer) doctor() (doctor.Report, error) {
	ns, err := w.Namespace("n1")
	if err != nil {
		return doctor.Report{}, err
	}
	out, err := ns.Command(binary, "doctor", "-o", "json", "--http", w.http).Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return doctor.Report{}, err
	}
	var r doctor.Report
	if err := json.Unmarshal(out, &r); err != nil {
		return r, fmt.Errorf("doctor printed %q: %w", out, err)
	}
	status, want := 0, 0
	if exit != nil {
		status = exit.ExitCode()
	}
	switch {
	case r.Errors():
		want = 1
	case len(r.Silent) > 0:
		want = 2
	}
	if status != want {
		return r, fmt.Errorf("exit status %d, want %d for %+v", status, want, r)
	}
	return r, nil
}

// until asks the doctor, after the fault, until the condition holds.
func (w *tracer) until(fault func() error, holds func(doctor.Report) bool) {
	w.t.Helper()
	w.must(lab.Await(slow, func() error {
		if fault != nil {
			_ = fault() // what is there already cannot be made
		}
		r, err := w.doctor()
		if err == nil && !holds(r) {
			err = fmt.Errorf("it says %+v", r)
		}
		return err
	}))
}

func TestDoctorNamesWhatIsWrongWithAHost(t *testing.T) {
	w := newTracer(t, lab.Options{GatewayArgs: []string{"--audit-log", "-"}})
	const node = 2
	run := func(host string, command string) func() error {
		return func() error {
			_, err := w.Exec(host, "sh", "-c", command)
			return err
		}
	}
	at := lab.NodeName(node)
	for _, test := range []struct {
		name, check, object, found string
		severity                   doctor.Severity
		fault, mend                func() error
	}{
		{"rp_filter", "problems", "sysctl net.ipv4.conf.sally0.rp_filter", "is 1, so replies out of the tunnel are dropped: set it to 2", doctor.Error,
			run(at, "sysctl -w net.ipv4.conf.sally0.rp_filter=1"), run(at, "sysctl -w net.ipv4.conf.sally0.rp_filter=2")},
		{"MTU on the way", "mtu", "way to 192.0.2.10", "packets of 1400 bytes come back, of the tunnel's 1500 bytes not", doctor.Error,
			run(lab.Switch, "ip link set "+at+" mtu 1400"), run(lab.Switch, "ip link set "+at+" mtu 1500")},
		{"foreign user of the mark", "problems", "nftables table ip foreign, chain pre", "bits 0x100 of the mark", doctor.Warning,
			run(at, "nft 'add table ip foreign; add chain ip foreign pre { type filter hook prerouting priority 0; }; flush chain ip foreign pre; add rule ip foreign pre meta mark set mark or 0x100'"),
			run(at, "nft delete table ip foreign")},
		{"masquerade before ours", "masquerade", "nftables table ip foreign, chain post, priority 50", "before Sallyport", doctor.Warning,
			run(at, "nft 'add table ip foreign; add chain ip foreign post { type nat hook postrouting priority 50; }; flush chain ip foreign post; add rule ip foreign post ip saddr 198.51.100.1 masquerade'"),
			run(at, "nft delete table ip foreign")},
		{"ARP", "arp", "sysctl net.ipv4.conf.eth0.arp_ignore", "is 2", doctor.Error,
			run("n1", "sysctl -w net.ipv4.conf.eth0.arp_ignore=2"), run("n1", "sysctl -w net.ipv4.conf.eth0.arp_ignore=0")},
		{"accounting", "accounting", "sysctl net.netfilter.nf_conntrack_acct", "is 0, so the audit of payments has no packets and bytes", doctor.Warning,
			func() error { return w.Manifests.WriteRoute("payments", traceable+"audit: true\n") }, run("n1", "sysctl -w net.netfilter.nf_conntrack_acct=1")},
	} {
		t.Run(test.name, func(t *testing.T) {
			named := func(r doctor.Report) bool {
				for _, f := range r.Findings {
					if f.Check == test.check && f.Object == test.object && f.Severity == test.severity && strings.Contains(f.Found, test.found) {
						return true
					}
				}
				return false
			}
			w.until(nil, func(r doctor.Report) bool { return !named(r) && !r.Errors() && len(r.Silent) == 0 })
			w.until(test.fault, named)
			w.must(test.mend())
			w.until(nil, func(r doctor.Report) bool { return !named(r) })
		})
	}
	t.Run("silent", func(t *testing.T) {
		p, err := w.Program(lab.Agent, node)
		w.must(err)
		w.must(p.Kill())
		w.until(nil, func(r doctor.Report) bool { return len(r.Silent) == 1 && !r.Errors() }) // exit status 2
	})
}
