package k8s

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sallyport/sallyport/doctor"
	"github.com/sallyport/sallyport/e2e/lab"
)

// finding is one that doctor is to have.
type finding struct {
	severity     doctor.Severity
	check        string
	where        string // node, "" for the cluster
	object, says string // words of what was found, or of its cure
}

// anywhere is a node that the test cannot know, as the holder of a busy machine.
const anywhere = "*"

func (f finding) in(r doctor.Report) bool {
	return slices.ContainsFunc(r.Findings, func(g doctor.Finding) bool {
		return g.Check == f.check && g.Severity == f.severity && (g.Where == f.where || f.where == anywhere) && g.Object == f.object &&
			strings.Contains(g.Found+g.Cure, f.says) && (g.Cure != "" || f.check == "problems")
	})
}

func (f finding) told(r doctor.Report) error {
	if !f.in(r) {
		return fmt.Errorf("nothing of %+v", f)
	}
	return nil
}

// ails is something wrong with a host of the cluster, and what doctor is to say of it.
type ails struct {
	host        string
	fault, mend string // commands of a shell there
	finding
}

// chain is a table of another program with one chain of one rule.
func chain(table, hook, rule string) (fault, mend string) {
	return fmt.Sprintf("nft 'add table ip %[1]s; add chain ip %[1]s c { type %[2]s; }; flush chain ip %[1]s c; add rule ip %[1]s c %[3]s'", table, hook, rule),
		"nft delete table ip " + table
}

const nowhere = `apiVersion: sallyport.dev/v1alpha1
kind: EgressRoute
metadata: {name: nowhere}
spec:
  vip: 192.0.2.99
  namespaceSelector: {}
  destinations: [{cidr: 198.51.100.0/24}]
`

// ofANode ails one that is not the holder's, whose frames pass the switch: its settings, and who
// else uses what is ours.
func ofANode(node string) []ails {
	at := func(fault, mend string, s doctor.Severity, check, object, says string) ails {
		return ails{node, fault, mend, finding{s, check, node, object, says}}
	}
	with := func(table, hook, rule, check, object, says string) ails {
		fault, mend := chain(table, hook, rule)
		return at(fault, mend, doctor.Warning, check, "nftables table ip "+table+", chain c"+object, says)
	}
	sysctl := func(name string, bad, good int, check, says string) ails {
		return at(fmt.Sprintf("sysctl -qw %s=%d", name, bad), fmt.Sprintf("sysctl -qw %s=%d", name, good), doctor.Error, check, "sysctl "+name, says)
	}
	const rule, unrule = "ip rule add from 198.51.100.1 priority 95 lookup 5301 || true", "ip rule del from 198.51.100.1 priority 95 lookup 5301"
	return []ails{
		sysctl("net.ipv4.conf.sally0.rp_filter", 1, 2, "problems", "set it to 2"),
		sysctl("net.ipv4.ip_forward", 0, 1, "problems", "set it to 1"),
		sysctl("net.ipv4.conf.eth0.arp_ignore", 2, 0, "arp", "to 0 or 1"),
		sysctl("net.netfilter.nf_conntrack_events", 0, 2, "conntrack", "set it to 2"),
		with("marks", "filter hook prerouting priority 0", "meta mark set mark or 0x100", "problems", "", "bits 0x100 of the mark"),
		with("zones", "filter hook prerouting priority -300", "ip saddr 198.51.100.1 ct zone set 51", "problems", "", "zone 51, which is ours: choose another"),
		with("sources", "nat hook postrouting priority 50", "ip saddr 198.51.100.1 masquerade", "masquerade", ", priority 50", "use priority 96 or later"),
		at("ip link show theirs || ip link add theirs type vxlan id 7 dstport 4793 dev eth0", "ip link del theirs",
			doctor.Warning, "problems", "interface theirs", "give one of the two another port"),
		at(rule, unrule, doctor.Warning, "problems", "ip rule 95: fwmark 0x0/0x0 lookup 5301", "--rule-priority: of another program has our priority"),
		at("true", "true", doctor.Warning, "problems", "ip rule 95: fwmark 0x0/0x0 lookup 5301", "leads to one of our tables"),
		at("ip route replace blackhole 198.51.100.7 table 5302", "ip route del 198.51.100.7 table 5302",
			doctor.Warning, "problems", "routing table 5302", "has 1 routes of another program"),
		{lab.Switch, "ip link set " + node + " mtu 1400", "ip link set " + node + " mtu 1500",
			finding{doctor.Error, "mtu", node, "way to " + theVIP.String(), "let 1500 bytes pass everywhere on the way"}},
	}
}

// ofTheWay ails what nodes tell each other: one cannot ping the VIP (and is told by kube-proxy that it
// has it), another does not hear its answers, and no standby can follow the holder, whoever that is.
func ofTheWay(one, other string, all []int) []ails {
	mute, speak := chain("mute", "filter hook output priority 0", "ip daddr "+theVIP.String()+" icmp type echo-request drop")
	deaf, hear := chain("deaf", "filter hook input priority 0", "ip saddr "+theVIP.String()+" icmp type echo-reply drop")
	apart, together := chain("apart", "filter hook input priority 0", "tcp dport 7965 reject with tcp reset")
	way := "way to " + theVIP.String()
	list := []ails{
		{one, mute, speak, finding{doctor.Warning, "mtu", one, way, "could not be probed: "}},
		{other, deaf, hear, finding{doctor.Error, "mtu", other, way, "no ping of any size comes back"}},
		{other, "ip link set sally0 mtu 1200", "ip link set sally0 mtu 1464", finding{doctor.Error, "problems", other, "interface eth0", "raise its MTU to 1316 or more"}},
		{one, "ip link show kube-ipvs0 || ip link add kube-ipvs0 type bridge; ip addr replace " + theVIP.String() + "/32 dev kube-ipvs0", "ip link del kube-ipvs0",
			finding{doctor.Error, "kube-proxy", one, "interface kube-ipvs0", "take it out of the Service's externalIPs"}},
	}
	for _, j := range all {
		list = append(list, ails{lab.NodeName(j), apart, together, finding{doctor.Warning, "replication", anywhere, "VIP " + theVIP.String(), "no standby has its connections"}})
	}
	return list
}
