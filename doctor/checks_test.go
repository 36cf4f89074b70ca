package doctor

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/gateway"
)

var vip = netip.MustParseAddr("192.0.2.10")

// well are an agent and two gateways with nothing wrong.
func well() []Host {
	v := VIP{Addr: vip, Interface: "eth0", Holder: "gw-0", Voters: 2, Replicas: 2, Replicated: true}
	held := v
	held.Held, held.Standbys = true, []Standby{{Name: "gw-1", InStep: true}}
	kernel := Kernel{Release: "6.1.0-13-amd64", Connections: 10, Room: 100, ARPIgnore: map[string]int{"eth0": 1}}
	gw := func(name, node string, v VIP) Host {
		return Host{Program: "gateway", Name: name, Node: node, Version: "v1", Netfilter: "nftables", Priority: "nice -20", Live: true, VIPs: []VIP{v}, Kernel: kernel}
	}
	agent := Host{Program: "agent", Node: "n1", Version: "v1", Netfilter: "nftables", Live: true, VIPs: []VIP{{Addr: vip}}, Kernel: kernel,
		Paths: []Path{{To: vip, Device: "sally0", Size: 1500, Largest: 1500}}}
	return []Host{gw("gw-0", "n1", held), gw("gw-1", "n2", v), agent}
}

func TestNothingIsFoundWhereNothingIsWrong(t *testing.T) {
	if r := Examine(well(), nil); len(r.Findings) != 0 || r.Hosts != 3 || r.Errors() {
		t.Errorf("%+v", r)
	}
}

// Agent and gateway of a host see the same, and several things of one object.
func TestWhatTwoProgramsSayAlikeIsToldOnce(t *testing.T) {
	h := well()
	for _, i := range []int{0, 2} {
		h[i].Problems = []gateway.Problem{
			{Object: "ip rule 95", Field: "--table-base", Reason: gateway.Misconfigured, Message: "leads to one of ours"},
			{Object: "ip rule 95", Field: "--rule-priority", Reason: gateway.Misconfigured, Message: "has our priority"},
		}
	}
	if r := Examine(h, nil); len(r.Findings) != 2 {
		t.Errorf("%d findings, want 2: %+v", len(r.Findings), r.Findings)
	}
}

func TestEachCheck(t *testing.T) {
	problem := func(object, field string, reason gateway.Reason) []gateway.Problem {
		return []gateway.Problem{{Object: object, Field: field, Reason: reason, Message: "told: do this"}}
	}
	for _, test := range []struct {
		name     string
		spoil    func(h []Host)
		check    string
		severity Severity
		where    string
		found    string
	}{
		{"not applied", func(h []Host) { h[2].Apply = "no room" }, "applied", Error, "n1", "no room"},
		{"saved view", func(h []Host) { h[1].Live = false }, "view", Warning, "n2", "that it saved"},
		{"no view", func(h []Host) { h[1].Live, h[1].Viewless = false, true }, "view", Error, "n2", "has no view yet"},
		{"rp_filter", func(h []Host) {
			h[2].Problems = problem("sysctl net.ipv4.conf.sally0.rp_filter", "", gateway.Misconfigured)
		}, "problems", Error, "n1", "told"},
		{"small MTU of an interface", func(h []Host) { h[2].Problems = problem("interface eth0", "", gateway.Misconfigured) }, "problems", Error, "n1", "told"},
		{"foreign tunnel", func(h []Host) {
			h[2].Problems = problem("interface flannel.1", "--tunnel-port", gateway.Misconfigured)
		}, "problems", Warning, "n1", "--tunnel-port: told"},
		{"foreign mark", func(h []Host) {
			h[2].Problems = problem("nftables table ip other", "--mark-mask", gateway.Misconfigured)
		}, "problems", Warning, "n1", "--mark-mask: told"},
		{"a gateway of no Node", func(h []Host) { h[0].Problems = problem("Node n1", "status.addresses", gateway.UnknownNode) }, "problems", Error, "", "status.addresses: told"},
		{"a pod of no Node", func(h []Host) { h[0].Problems = problem("Pod default/x", "spec.nodeName", gateway.UnknownNode) }, "problems", Warning, "", "spec.nodeName: told"},
		{"another owner", func(h []Host) { h[0].Problems = problem("VIP 192.0.2.10", "", gateway.Duplicate) }, "problems", Error, "n1", "told"},
		{"no gateway for a VIP", func(h []Host) { h[0].Problems = problem("EgressRoute x", "spec.vip", gateway.UnknownVIP) }, "problems", Error, "", "told"},
		{"no holder", func(h []Host) { h[0].VIPs[0].Held, h[0].VIPs[0].Barred = false, "no carrier" }, "holder", Error, "", "no carrier"},
		{"the holder does not say so", func(h []Host) { h[0].VIPs[0].Held = false }, "holder", Error, "", "no gateway that answers"},
		{"no quorum", func(h []Host) {
			h[0].VIPs[0].Held = false
			h[0].VIPs[0].Voters, h[1].VIPs[0].Voters = 1, 1
		}, "holder", Error, "", "at most 1 of 2"},
		{"two holders", func(h []Host) {
			h[1].VIPs[0].Held, h[1].VIPs[0].Standbys = true, h[0].VIPs[0].Standbys
		}, "holder", Error, "", "n1 and n2"},
		{"a gateway is not heard", func(h []Host) {
			for i := range 2 {
				h[i].VIPs[0].Replicas = 3
			}
		}, "holder", Warning, "", "2 of 3"},
		{"versions", func(h []Host) { h[1].Version = "v2" }, "version", Warning, "", "v1, v2"},
		{"clock", func(h []Host) { h[1].Ahead, h[1].Doubt = -9*time.Second, time.Second }, "clock", Warning, "n2", "-9s"},
		{"priority", func(h []Host) { h[1].Priority, h[1].Unraised = "normal: CAP_SYS_NICE missing", true }, "priority", Warning, "n2", "CAP_SYS_NICE"},
		{"not replicated", func(h []Host) { h[0].VIPs[0].Replicated = false }, "replication", Info, "n1", "not replicated"},
		{"lag", func(h []Host) {
			h[0].VIPs[0].Standbys = []Standby{{Name: "gw-1", InStep: true, Lag: 3 * time.Second}, {Name: "gw-2", InStep: true}}
		}, "replication", Warning, "n1", "gw-1 lags by 3s"},
		{"not caught up", func(h []Host) {
			h[0].VIPs[0].Standbys = []Standby{{Name: "gw-1"}, {Name: "gw-2", InStep: true}}
		}, "replication", Warning, "n1", "gw-1 has not caught up"},
		{"no standby", func(h []Host) { h[0].VIPs[0].Standbys = nil }, "replication", Warning, "n1", "no standby"},
		{"MTU", func(h []Host) { h[2].Paths[0].Largest = 1400 }, "mtu", Error, "n1", "packets of 1400 bytes come back, of the tunnel's 1500 bytes not"},
		{"no way", func(h []Host) { h[2].Paths[0].Largest = 0 }, "mtu", Error, "n1", "no ping"},
		{"not probed", func(h []Host) { h[2].Paths[0].Error = "no NET_RAW" }, "mtu", Warning, "n1", "no NET_RAW"},
		{"ARP", func(h []Host) { h[1].Kernel.ARPIgnore = map[string]int{"eth0": 2} }, "arp", Error, "n2", "is 2"},
		{"kube-proxy", func(h []Host) { h[1].Kernel.Bound = []netip.Addr{vip} }, "kube-proxy", Error, "n2", "192.0.2.10"},
		{"masquerade", func(h []Host) { h[2].Kernel.Earlier = []string{"nftables table ip cni, chain x"} }, "masquerade", Warning, "n1", "before Sallyport"},
		{"kernel", func(h []Host) { h[2].Kernel.Missing = []string{"maps of ranges", "zones"} }, "kernel", Error, "n1", "maps of ranges, zones"},
		{"no events", func(h []Host) { h[0].Kernel.Unheard = true }, "conntrack", Error, "n1", "neither replicated nor audited"},
		{"conntrack nearly full", func(h []Host) { h[2].Kernel.Connections = 85 }, "conntrack", Warning, "n1", "85 of 100"},
		{"conntrack full", func(h []Host) { h[2].Kernel.Connections = 99 }, "conntrack", Error, "n1", "99 of 100"},
		{"audit without bytes", func(h []Host) {
			h[0].Kernel.Uncounted, h[0].Audits = true, []string{"payments"}
		}, "accounting", Warning, "n1", "the audit of payments has no packets and bytes"},
	} {
		t.Run(test.name, func(t *testing.T) {
			hosts := well()
			test.spoil(hosts)
			r := Examine(hosts, nil)
			if len(r.Findings) != 1 {
				t.Fatalf("%+v", r.Findings)
			}
			f := r.Findings[0]
			if f.Check != test.check || f.Severity != test.severity || f.Where != test.where || !strings.Contains(f.Found, test.found) || f.Check != "problems" && f.Cure == "" {
				t.Errorf("%+v", f)
			}
		})
	}
}

// A host without an audit counts nothing, and one host alone does not have every holder.
func TestWhatIsNotWrong(t *testing.T) {
	hosts := well()
	hosts[1].Kernel.Uncounted = true
	hosts[2].Kernel.Unheard = true // an agent hears of nothing
	if r := Examine(hosts[1:], nil); len(r.Findings) != 0 {
		t.Errorf("%+v", r)
	}
}

func TestWhatAllHostsSayIsToldOnce(t *testing.T) {
	hosts := well()
	for i := range hosts {
		hosts[i].Problems = []gateway.Problem{{Object: "Pod shop/a", Reason: gateway.UnknownRoute, Message: "there is no such route"}}
	}
	if r := Examine(hosts, []Silent{{"agent", "n2", "refused"}}); len(r.Findings) != 1 || r.Errors() || len(r.Silent) != 1 {
		t.Errorf("%+v", r)
	}
}
