package k8s

import (
	"fmt"
	"strings"
	"sync"

	"github.com/sallyport/sallyport/e2e/cluster"
	"github.com/sallyport/sallyport/e2e/lab"
	"github.com/sallyport/sallyport/trace"
)

// lookedAt are pods of all kinds.
var lookedAt = strings.ReplaceAll(`
apiVersion: v1
kind: Pod
metadata: {name: plain}
spec: {containers: [{name: client, image: IMAGE, args: [client, --to, `+public.String()+`]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: ended}
spec: {restartPolicy: Never, containers: [{name: client, image: IMAGE, args: [nonsense]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: waiting}
spec: {nodeSelector: {none: such}, containers: [{name: client, image: IMAGE}]}
`, "IMAGE", cluster.PodImage)

// twin is a pod of a node that died: nobody says any more what became of it.
var twin = `
apiVersion: v1
kind: Pod
metadata: {name: twin, annotations: {sallyport.dev/egress-routes: payments}}
spec: {nodeName: n9, containers: [{name: client, image: ` + cluster.PodImage + `}]}
`

// closed is a route of whom is labelled, by a VIP that no gateway has.
const closed = `apiVersion: sallyport.dev/v1alpha1
kind: EgressRoute
metadata: {name: closed}
spec:
  vip: 192.0.2.11
  namespaceSelector: {matchLabels: {team: closed}}
  destinations: [{cidr: 198.51.100.0/24, except: [198.51.100.7/32], ports: [{protocol: TCP, port: 443}]}]
`

// refusing is an address beyond the partner's router, which says that it lets nobody there.
const refusing = "203.0.113.200"

// decisions are those of the view, from no pod at all to a connection of before.
func (t *tracer) decisions() {
	t.t.Helper()
	w := t.world
	w.apply(lookedAt)
	w.finds("nobody", t.to, wrong("pod", "there is no Pod default/nobody"), nil)
	w.finds("waiting", t.to, wrong("pod", "is Pending and has no address yet"), nil)
	agent := w.kubectl("get", "pods", "-n", namespace, "-l", "app.kubernetes.io/component=agent", "-o", "jsonpath={.items[0].metadata.name}")
	w.finds(agent+"."+namespace, t.to, wrong("agent's view", "the pod is on its node's network"), nil)
	w.kubectl("wait", "pod", "plain", "--for=condition=Ready", "--timeout", patience.String())
	plain, p := "plain", t.all[0]
	t.sh("ip route add prohibit "+refusing, lab.Router)
	asNode := "the outside saw " + lab.OutsideAddr(w.podNamed(plain).node).String()
	probes := []struct {
		pod, to string
		also    []string
		want    []sighting
	}{
		{p.name, t.to, []string{"--echo-url", fmt.Sprintf("http://%s:%d/", public, lab.HTTPPort)}, []sighting{{trace.OK, "probe", theVIP.String() + ", the VIP"}}},
		{p.name, fmt.Sprintf("%s:%d", public, lab.DiscardPort), nil, []sighting{{trace.Note, "probe", "does not say what it sees it as"}}},
		{p.name, refusing + ":443", nil, []sighting{wrong("probe", "the pod's connection came to nothing"), {trace.Note, "connections", "none was answered"}}},
		{plain, reflector, nil, []sighting{wrong("selection", "no route selects the pod"), {trace.Note, "probe", asNode}}},
	}
	var all sync.WaitGroup // for a container takes its time
	first := make([]trace.Report, len(probes))
	for i, f := range probes {
		all.Go(func() { first[i], _ = w.trace(f.pod, f.to, append(f.also, "--probe")...) })
	}
	all.Wait()
	for i, f := range probes {
		for _, want := range f.want {
			if !want.in(first[i]) {
				w.finds(f.pod, f.to, want, nil, append(f.also, "--probe")...)
			}
		}
	}
	t.sh("ip route del prohibit "+refusing, lab.Router)

	annotate := func(routes string) {
		w.kubectl("annotate", "pod", plain, "--overwrite", "sallyport.dev/egress-routes="+routes)
	}
	annotate("nowhere")
	w.finds(plain, t.to, wrong("selection", "names EgressRoute nowhere, which there is not"), nil)
	w.apply(closed)
	annotate("payments,closed")
	w.finds(plain, "198.51.100.1:443", wrong("access", "EgressRoute closed does not admit namespace default"), nil)
	w.kubectl("label", "namespace", "default", "team=closed")
	w.finds(plain, "198.51.100.1:443", wrong("holder", "no gateway is configured to hold 192.0.2.11"), nil)
	w.finds(plain, "198.51.100.7:443", wrong("destination", "198.51.100.7 is in except of 198.51.100.0/24"), nil)
	w.finds(plain, "198.51.100.1:80", wrong("destination", "port 80/tcp is not among its ports 443/tcp"), nil)
	annotate("closed")
	w.kubectl("label", "namespace", "default", "team-")
	w.kubectl("delete", "egressroute", "closed")
	w.finds(plain, t.to, wrong("selection", "names EgressRoute closed, which there is not"), nil)

	// Gateways that do not hear of what the agent does.
	w.finds(plain, reflector, wrong("admission", "the gateway's own view admits the packet by no route"), func() {
		t.sh("nft delete table inet cut", t.nodes()...)
		annotate("closed")
		t.cut("gateway", w.everyNode()...)
		annotate("payments")
	})
	t.sh("nft delete table inet cut", t.nodes()...)
	w.clear(plain, reflector)
	w.finds(plain, reflector, sighting{trace.Note, "connections", "was begun another way"}, nil)
	w.finds("ended", t.to, wrong("agent's view", "the pod has ended"), nil)

	w.apply(twin)
	t.addressed("twin", p.addr.String())
	w.finds("twin", t.to, sighting{trace.Unknown, "agent", "no agent's pod is on the node"}, nil)
	w.finds(p.name, t.to, wrong("admission", "another pod has address "+p.addr.String()+", too"), nil)
	w.kubectl("delete", "pod", "ended", "waiting", "twin", "--force", "--grace-period=0")
	w.clear(p.name, t.to)
}

// cut drops what the API server tells a program on nodes, once it is connected; it does not notice for
// half a minute, so what is to be found meanwhile is made anew for each look.
func (t *tracer) cut(program string, nodes ...int) {
	t.t.Helper()
	for _, j := range nodes {
		t.await(func() error {
			_, err := t.Run(j, "sh", "-ec", `nft 'add table inet cut; delete table inet cut; add table inet cut; add chain inet cut in { type filter hook input priority 0; }'
			for port in $(ss -Htnp dport = :443 | grep "pid=$(pgrep -f '^[^ ]*sallyport `+program+` ')," | awk '{sub(/.*:/, "", $4); print $4}'); do
				nft add rule inet cut in tcp dport $port drop
			done
			nft list table inet cut | grep -q drop`)
			return err
		})
	}
}

// addressed has the API show a pod with an address, or none, as a kubelet would.
func (t *tracer) addressed(pod, addr string) {
	t.t.Helper()
	status := `{"status":{"phase":"Running","podIP":"` + addr + `","podIPs":[{"ip":"` + addr + `"}]}}`
	if addr == "" {
		status = `{"status":{"podIP":null,"podIPs":null}}`
	}
	t.kubectl("patch", "pod", pod, "--subresource=status", "--type=merge", "-p", status)
}

// views has the agent's view be another than the API's, and the node's than the kubelet's.
func (t *tracer) views() {
	t.t.Helper()
	w, late := t.world, "late"
	plain := w.podNamed("plain")
	uncut := func() { t.sh("nft delete table inet cut", lab.NodeName(plain.node)) }
	w.finds(plain.name, t.to, wrong("agent's view", "the pod has no address"), func() {
		uncut()
		t.addressed(plain.name, "")
		t.cut("agent", plain.node)
		t.addressed(plain.name, plain.addr.String())
	})
	uncut()
	w.clear(plain.name, t.to)
	w.finds(plain.name, t.to, wrong("agent's view", "in the API it has 10.244.9.9"), func() {
		uncut()
		t.addressed(plain.name, plain.addr.String())
		t.cut("agent", plain.node)
		t.addressed(plain.name, "10.244.9.9")
	})
	t.addressed(plain.name, plain.addr.String())
	w.finds(late, t.to, wrong("agent's view", "Pod default/late is not in it"), func() {
		uncut()
		w.kubectl("delete", "pod", late, "--force", "--grace-period=0", "--ignore-not-found")
		t.cut("agent", plain.node)
		w.apply(strings.NewReplacer("plain", late, "containers", "nodeName: "+lab.NodeName(plain.node)+", containers").Replace(strings.Split(lookedAt, "---")[0]))
		w.kubectl("wait", "pod", late, "--for=jsonpath={.status.phase}=Running", "--timeout", patience.String())
	})
	uncut()
	w.finds(late, t.to, wrong("selection", "no route selects the pod"), nil)

	// The node's address is another one: what it sends is nobody's any more.
	p, holder := t.now()
	for node, step := range map[int]string{p.node: "route", holder: "reply"} {
		own := w.Lab.NodeIP(node).String()
		other := "192.0.2." + fmt.Sprint(100+node)
		t.sh("ip addr add "+other+"/32 dev eth0", lab.NodeName(node))
		is := func(addr string) {
			w.kubectl("patch", "node", lab.NodeName(node), "--subresource=status", "--type=merge", "-p", `{"status":{"addresses":[{"type":"InternalIP","address":"`+addr+`"}]}}`)
		}
		w.finds(p.name, t.to, wrong(step, "Node "+lab.NodeName(node)+": status.addresses"), func() { is(other) })
		is(own)
		t.sh("ip addr del "+other+"/32 dev eth0", lab.NodeName(node))
	}
	w.clear(p.name, t.to)

	// Into another network namespace, and not deleted: the CNI would not find the pod's end any more, and leave its rules.
	_, err := w.Run(plain.node, "sh", "-ec", fmt.Sprintf(`ping -c 1 -W 1 %[1]s >/dev/null || true
		mac=$(ip neigh show %[1]s | sed 's/.*lladdr \([^ ]*\).*/\1/')
		interface=$(bridge fdb show | awk -v mac=$mac '$1 == mac { print $3; exit }')
		unshare -n sleep 600 </dev/null >/dev/null 2>&1 &
		until [ "$(readlink /proc/$!/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.01; done
		ip link set $interface netns $!`, plain.addr))
	w.must(err)
	w.finds(plain.name, t.to, wrong("agent's view", "the interface of the pod's address is gone"), nil)
	w.kubectl("delete", "pod", plain.name, late, "--force", "--grace-period=0")
	w.kubectl("label", "namespace", "default", "kick-")
}
