package k8s

import (
	"fmt"
	"strings"

	"github.com/sallyport/sallyport/e2e/lab"
	"github.com/sallyport/sallyport/trace"
)

// tracer traces an app's pods to a destination while one thing after another is wrong.
type tracer struct {
	*world
	all  []pod // of the app
	to   string
	kick int
}

// now gives a pod that is not on the holder's node, and that node: a machine with much else to do
// may have the VIP move.
func (t *tracer) now() (pod, int) {
	t.t.Helper()
	holder := t.holder(t.everyNode()...)
	for _, p := range t.all {
		if p.node != holder {
			return p, holder
		}
	}
	t.t.Fatal("all pods are on the holder's node")
	return pod{}, 0
}

// sh runs a script on hosts. What is there already, or gone, is as good.
func (t *tracer) sh(script string, hosts ...string) {
	t.t.Helper()
	for _, h := range hosts {
		_, err := t.Lab.Exec(h, "sh", "-c", "("+script+") 2>/dev/null; true")
		t.must(err)
	}
}

func (t *tracer) nodes() (all []string) {
	for _, j := range t.everyNode() {
		all = append(all, lab.NodeName(j))
	}
	return all
}

// hurry has every program bring its view to the kernel, which it does by itself within 30 s.
func (t *tracer) hurry() {
	t.t.Helper()
	t.kick++
	t.kubectl("label", "namespace", "default", "--overwrite", fmt.Sprintf("kick=%d", t.kick))
}

// breakage is of the holder's host or the pod's node.
type breakage struct {
	where       string
	fault, mend string // commands of a shell there; the mending may be the programs' own
	step, says  string
}

// breakages begin with the last that a packet meets: each is the first thing wrong although those
// before it are, too.
var breakages = []breakage{
	{"holder", "nft 'add table ip foreign; add chain ip foreign post { type nat hook postrouting priority 50; }; flush chain ip foreign post; add rule ip foreign post ip saddr POD snat to HOLDER'",
		"nft delete table ip foreign; conntrack -D -s POD", "connections", "leaves as HOLDER:"},
	{"holder", "ip rule add priority 50 fwmark 0x1f00/0x1f00 lookup main", "ip rule del priority 50", "reply", "the kernel sends replies by table 254 to device eth0"},
	{"holder", "ip rule add priority 49 fwmark 0x1f00/0x1f00 unreachable", "ip rule del priority 49", "reply", "unreachable"},
	{"holder", "ip route flush table 5331 proto 83", "", "reply route", "add route POD/32 in table 5331"},
	{"holder", "sysctl -w net.ipv4.conf.sally0.rp_filter=1", "", "gateway's tunnel", "sysctl net.ipv4.conf.sally0.rp_filter is 1"},
	{"holder", "ip rule del priority 95 table 5331", "", "reply rule", "add ip rule 95"},
	{"holder", "ip route add TO/32 dev sally0", "ip route del TO/32 dev sally0", "way out", "into the tunnel"},
	{"holder", "ip route del TO/32 dev sally0; ip route add unreachable TO/32", "ip route del unreachable TO/32", "way out", "no route to host"},
	// The gateway puts these back so fast that they must go on for a while to be seen.
	{"holder", "timeout 3 sh -c 'while :; do nft flush set ip sally_fence held; done' >&- 2>&- & sleep 0.1", "", "address", "the fence is closed for VIP"},
	{"holder", "timeout 3 sh -c 'while :; do ip addr del VIP/32 dev eth0; done' >&- 2>&- & sleep 0.1", "", "address", "no interface of the holder has VIP"},
	{"holder", "nft flush chain ip sally_gw _source", "", "SNAT", "snat to VIP"},
	{"holder", "nft flush chain ip sally_gw _forward", "", "gateway's rules", "is missing"},
	{"holder", "nft delete element ip sally_gw routes-sources { POD }", "", "admission", "POD is missing"},
	{"holder", "ip route replace POD dev lo table 5331 proto static", "ip route del POD dev lo table 5331 proto static", "gateway", "it could not apply the last view: route POD/32 in table 5331"},
	{"node", "ip rule add priority 49 to TO unreachable", "ip rule del priority 49", "route", "unreachable"},
	{"node", "ip route flush table all proto 83", "", "table", "add route 0.0.0.0/0"},
	{"node", "sysctl -w net.ipv4.conf.sally0.rp_filter=1", "", "tunnel", "sysctl net.ipv4.conf.sally0.rp_filter is 1"},
	{"node", "ip link set sally0 down", "", "tunnel", "device sally0 is down"},
	{"node", "ip rule del priority 95; ip rule del priority 95", "", "ip rule", "add ip rule 95"},
	{"node", "nft flush chain ip sally_node marked-out", "", "rules", "is missing"},
	{"node", "nft delete element ip sally_node routes-sources { POD }", "", "sets", "POD is missing"},
	{"node", "ip route replace default dev lo table 5308 proto static", "ip route del default dev lo table 5308", "agent", "it could not apply the last view: route 0.0.0.0/0 in table 5308"},
}

// kernels has the kernels of the pod's node and of the holder's host lack one thing after another.
func (t *tracer) kernels() {
	t.t.Helper()
	p, _ := t.now()
	t.clear(p.name, t.to)
	words := func(p pod, holder int) *strings.Replacer {
		return strings.NewReplacer("POD", p.addr.String(), "TO", public.String(), "VIP", theVIP.String(),
			"HOLDER", t.Lab.NodeIP(holder).String())
	}
	for _, b := range breakages {
		t.await(func() error {
			p, holder := t.now()
			at := map[string]string{"holder": lab.NodeName(holder), "node": lab.NodeName(p.node)}[b.where]
			names := words(p, holder)
			t.sh(names.Replace(b.fault), at)
			if b.step == "agent" || b.step == "gateway" {
				t.hurry() // they do not look at what they have no cause to
			}
			r, err := t.trace(p.name, t.to)
			if want := wrong(b.step, names.Replace(b.says)); err == nil && !want.in(r) {
				err = fmt.Errorf("want %+v:%s", want, steps(r))
			}
			return err
		})
	}
	for _, p := range t.all {
		for _, b := range breakages {
			if b.mend != "" {
				t.sh(words(p, p.node).Replace(b.mend), t.nodes()...)
			}
		}
	}
	t.hurry()
	t.clear(p.name, t.to)
	p, _ = t.now()
	port := "ip link set " + lab.NodeName(p.node) + " mtu "
	t.sh(port+"1400", lab.Switch)
	t.finds(p.name, t.to, wrong("mtu", "packets of 1400 bytes come back, of the tunnel's 1500 bytes not"), nil)
	t.sh(port+"1500", lab.Switch)
	t.clear(p.name, t.to)
}

// deaf has nobody hear what comes to a port of the host itself.
const deaf = "nft 'add table inet deaf; add chain inet deaf in { type filter hook input priority -300; }; add rule inet deaf in iif lo tcp dport %d reject with tcp reset'"

// programs has gateways and the agent not answer, not hear each other, and hold nothing.
func (t *tracer) programs() {
	t.t.Helper()
	p, holder := t.now()
	for _, f := range []struct {
		port int
		at   []string
		want sighting
	}{
		{9872, []string{lab.NodeName(p.node)}, sighting{trace.Unknown, "agent", "it does not answer"}},
		{9871, []string{lab.NodeName(p.node)}, sighting{trace.Note, "gateway", "it does not answer"}},
		{9871, []string{lab.NodeName(holder)}, sighting{trace.Unknown, "holder", "and gave no answer itself"}},
		{9871, t.nodes(), sighting{trace.Unknown, "holder", "no gateway answered"}},
	} {
		t.sh(fmt.Sprintf(deaf, f.port), f.at...)
		t.finds(p.name, t.to, f.want, nil)
		t.sh("nft delete table inet deaf", f.at...)
	}
	for _, j := range t.everyNode() {
		t.must(t.Lab.CutGossip(j))
	}
	t.finds(p.name, t.to, wrong("holder", "hears 1 of the 2 gateways that must agree"), nil)
	t.must(t.Lab.Heal())
	t.clear(p.name, t.to)
	// As a port that its switch has not admitted yet (IEEE 802.1X) is set.
	t.sh("ip link set eth0 state DORMANT", t.nodes()...)
	t.finds(p.name, t.to, wrong("holder", "says: eth0: is in operational state dormant"), nil)
	t.sh("ip link set eth0 state UP", t.nodes()...)
	t.clear(p.name, t.to)
}
