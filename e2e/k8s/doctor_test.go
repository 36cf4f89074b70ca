package k8s

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/sallyport/sallyport/doctor"
	"github.com/sallyport/sallyport/e2e/lab"
)

// ails is something wrong with a host of the cluster, and what doctor is to say of it.
type ails struct {
	host         string
	fault, mend  string // commands of a shell there
	severity     doctor.Severity
	check        string
	where        string // node
	object, says string // words of what was found, or of its cure
}

// ailments are of a node that is not the holder's, whose frames pass the switch.
func ailments(node string) []ails {
	at := func(fault, mend string, s doctor.Severity, check, object, says string) ails {
		return ails{node, fault, mend, s, check, node, object, says}
	}
	const foreign = "nft delete table ip foreign"
	return []ails{
		at("sysctl -w net.ipv4.conf.sally0.rp_filter=1", "sysctl -w net.ipv4.conf.sally0.rp_filter=2",
			doctor.Error, "problems", "sysctl net.ipv4.conf.sally0.rp_filter", "set it to 2"),
		at("sysctl -w net.ipv4.conf.eth0.arp_ignore=2", "sysctl -w net.ipv4.conf.eth0.arp_ignore=0",
			doctor.Error, "arp", "sysctl net.ipv4.conf.eth0.arp_ignore", "to 0 or 1"),
		at("nft 'add table ip foreign; add chain ip foreign pre { type filter hook prerouting priority 0; }; flush chain ip foreign pre; add rule ip foreign pre meta mark set mark or 0x100'", foreign,
			doctor.Warning, "problems", "nftables table ip foreign, chain pre", "bits 0x100 of the mark"),
		at("nft 'add table ip foreign; add chain ip foreign post { type nat hook postrouting priority 50; }; flush chain ip foreign post; add rule ip foreign post ip saddr 198.51.100.1 masquerade'", foreign,
			doctor.Warning, "masquerade", "nftables table ip foreign, chain post, priority 50", "use priority 96 or later"),
		at("ip link show theirs || ip link add theirs type vxlan id 7 dstport 4793 dev eth0", "ip link del theirs",
			doctor.Warning, "problems", "interface theirs", "give one of the two another port"),
		at("sysctl -w net.netfilter.nf_conntrack_events=0", "sysctl -w net.netfilter.nf_conntrack_events=2",
			doctor.Error, "conntrack", "sysctl net.netfilter.nf_conntrack_events", "set it to 2"),
		{lab.Switch, "ip link set " + node + " mtu 1400", "ip link set " + node + " mtu 1500",
			doctor.Error, "mtu", node, "way to " + theVIP.String(), "let 1500 bytes pass everywhere on the way"},
	}
}

// examined demands of `kubectl sallyport doctor` that it finds every node well, names
// what is then made wrong, where it is, and finds all well again.
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
	nothing, all := func() {}, 2*len(w.everyNode())
	well := func(r doctor.Report) bool { return len(r.Findings) == 0 && len(r.Silent) == 0 && r.Hosts == all }
	ask(nothing, well)
	if w.Options.ProxyMode != "iptables" {
		return // what is made wrong has nothing to do with kube-proxy: once is enough
	}
	for _, a := range ailments(lab.NodeName(w.Lab.Others(w.holder(w.everyNode()...))[0])) {
		sh := func(command string) func() {
			return func() {
				_, err := w.Lab.Exec(a.host, "sh", "-ec", command)
				w.must(err)
			}
		}
		ask(sh(a.fault), func(r doctor.Report) bool {
			return slices.ContainsFunc(r.Findings, func(f doctor.Finding) bool {
				return f.Check == a.check && f.Severity == a.severity && f.Where == a.where && f.Object == a.object && strings.Contains(f.Found+f.Cure, a.says)
			})
		})
		sh(a.mend)()
		ask(nothing, well)
	}
	// One gateway less than there are to be: nothing is broken, and something is amiss.
	scale := func(n int) {
		w.kubectl("-n", namespace, "scale", "statefulset", "sallyport-gateway", fmt.Sprintf("--replicas=%d", n))
	}
	n := len(w.everyNode())
	scale(n - 1)
	ask(nothing, func(r doctor.Report) bool {
		return slices.ContainsFunc(r.Findings, func(f doctor.Finding) bool {
			return f.Check == "holder" && f.Severity == doctor.Warning && f.Object == "VIP "+theVIP.String() &&
				f.Found == fmt.Sprintf("%d of %d gateways are heard", n-1, n) && strings.Contains(f.Cure, "bring the others back")
		})
	})
	scale(n)
	ask(nothing, well)
}
