package e2e

import (
	"encoding/json"
	"fmt"
	"slices"
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
	return lab.Diagnosis(ns.Command(binary, "doctor", "-o", "json", "--http", w.http).Output())
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

// found tells whether there is such a finding, whose text has the words.
func found(r doctor.Report, want doctor.Finding, words string) bool {
	return slices.ContainsFunc(r.Findings, func(f doctor.Finding) bool {
		return f.Check == want.Check && f.Severity == want.Severity && f.Object == want.Object && (want.Where == "" || f.Where == want.Where) && strings.Contains(f.Found, words)
	})
}

func TestDoctorNamesWhatIsWrongWithAHost(t *testing.T) {
	t.Parallel()
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
		{"port", "problems", "interface theirs", "--tunnel-port", doctor.Warning,
			run(at, "ip link add theirs type vxlan id 7 dstport 4793 dev eth0"), run(at, "ip link del theirs")},
		{"kube-proxy IPVS", "kube-proxy", "interface kube-ipvs0", "kube-proxy has 192.0.2.10 as an address of a Service", doctor.Error,
			run("n1", "ip link add kube-ipvs0 type bridge; ip addr add 192.0.2.10/32 dev kube-ipvs0"), run("n1", "ip link del kube-ipvs0")},
		{"accounting", "accounting", "sysctl net.netfilter.nf_conntrack_acct", "is 0, so the audit of payments has no packets and bytes", doctor.Warning,
			func() error { return w.Manifests.WriteRoute("payments", traceable+"audit: true\n") }, run("n1", "sysctl -w net.netfilter.nf_conntrack_acct=1")},
	} {
		t.Run(test.name, func(t *testing.T) {
			named := func(r doctor.Report) bool {
				return found(r, doctor.Finding{Check: test.check, Severity: test.severity, Object: test.object}, test.found)
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
	// Last, for a claim is told for a minute.
	t.Run("VIP conflict", func(t *testing.T) {
		w.until(func() error { return w.Announce(node, theVIP) }, func(r doctor.Report) bool {
			return found(r, doctor.Finding{Check: "problems", Severity: doctor.Error, Where: "n1", Object: "VIP 192.0.2.10"}, lab.NodeMAC(node).String())
		})
	})
}

// A standby that stops is not yet missed by the election, whose lease is that of wan.
func TestDoctorNamesAStandbyThatLags(t *testing.T) {
	t.Parallel()
	w := &tracer{world: start(t, lab.Options{Nodes: 3, GatewayArgs: []string{"--timing", "wan"}})}
	holder := w.holder()
	standby := others(w.Options.GatewayNodes, holder)[0]
	ns, err := w.Namespace(lab.NodeName(holder))
	w.must(err)
	tr := w.startTraffic(holder)
	ask := func(holds func(doctor.Report) bool) {
		t.Helper()
		w.must(lab.Await(slow, func() error {
			out, err := ns.Command(binary, "doctor", "-o", "json", "--http", lab.GatewayHTTP).Output()
			var r doctor.Report
			if err := json.Unmarshal(out, &r); err != nil {
				return fmt.Errorf("doctor printed %q: %w", out, err)
			}
			if !holds(r) {
				return fmt.Errorf("doctor (%v) says %+v", err, r)
			}
			return nil
		}))
	}
	// Whoever holds by then, for a busy machine moves the VIP, is in step with all.
	told := func(r doctor.Report) bool {
		return slices.ContainsFunc(r.Findings, func(f doctor.Finding) bool {
			return f.Check == "replication" && f.Severity == doctor.Warning && f.Object == "VIP 192.0.2.10" && strings.HasPrefix(f.Found, lab.NodeName(standby)+" ") && f.Cure != ""
		})
	}
	ask(func(r doctor.Report) bool { return len(r.Findings) == 0 })
	w.must(w.gateway(standby).Pause())
	ask(told)
	w.must(w.gateway(standby).Continue())
	ask(func(r doctor.Report) bool { return !told(r) })
	w.stop(tr)
}
