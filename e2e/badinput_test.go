package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/e2e/lab"
)

// badInput is something wrong among the manifests.
type badInput struct {
	name string
	do   func(w *world)
	mend func(w *world)
	// words of the one Problem that says so: object, field and cure.
	words []string
	// by is who says so; none: both.
	by []lab.Role
}

func writeRoute(name, spec string) func(w *world) {
	return func(w *world) { w.must(w.Manifests.WriteRoute(name, spec)) }
}

func removeObject(kind, name string) func(w *world) {
	return func(w *world) { w.must(w.Manifests.Remove(kind, "", name)) }
}

// badRoute is a route of which only one line is wrong.
func badRoute(name, spec string, words ...string) badInput {
	return badInput{
		name: name, do: writeRoute("bad", spec), mend: removeObject("EgressRoute", "bad"),
		words: append([]string{"EgressRoute bad", "egressroute-bad.yaml"}, words...),
	}
}

var badInputs = []badInput{
	{
		name: "an annotation names a route that does not exist",
		do:   func(w *world) { w.must(w.Annotate(unselected(1), "paymnets")) },
		mend: func(w *world) { w.must(w.Annotate(unselected(1), "")) },
		words: []string{"Pod default/pod-1-2", "sallyport.dev/egress-routes", "there is no EgressRoute paymnets",
			"create it, or correct the annotation"},
	},
	{
		name: "a selected pod's annotation names another route that does not exist",
		do:   func(w *world) { w.must(w.Annotate(selected(1), "payments,kyc")) },
		mend: func(w *world) { w.must(w.Annotate(selected(1), "payments")) },
		words: []string{"Pod default/pod-1-1", "sallyport.dev/egress-routes", "there is no EgressRoute kyc",
			"create it, or correct the annotation"},
	},
	{
		name: "a namespace that the route does not admit",
		do: func(w *world) {
			w.must(w.Manifests.WriteRoute("bad", "{vip: 192.0.2.10, namespaceSelector: {matchLabels: {team: x}}, destinations: [{cidr: 198.51.100.0/24}]}"))
			w.must(w.Annotate(unselected(1), "bad"))
		},
		mend: func(w *world) {
			w.must(w.Annotate(unselected(1), ""))
			w.must(w.Manifests.Remove("EgressRoute", "", "bad"))
		},
		words: []string{"Pod default/pod-1-2", "EgressRoute bad does not admit namespace default", "label the namespace"},
	},
	{
		name: "a VIP that nobody holds",
		do:   writeRoute("bad", "{vip: 192.0.2.77, namespaceSelector: {}, destinations: [{cidr: 198.51.100.0/24}]}"),
		mend: removeObject("EgressRoute", "bad"),
		words: []string{"EgressRoute bad", "spec.vip", "no gateway holds 192.0.2.77", "start the gateways with --vip 192.0.2.77",
			"or correct spec.vip"},
		by: []lab.Role{lab.Gateway},
	},
	badRoute("a malformed CIDR", "{vip: 192.0.2.10, namespaceSelector: {}, destinations: [{cidr: 203.0.113.0/33}]}",
		"spec.destinations[0].cidr", "203.0.113.0/33", "not an address range", "203.0.113.0/24"),
	badRoute("a CIDR with host bits", "{vip: 192.0.2.10, namespaceSelector: {}, destinations: [{cidr: 203.0.113.5/24}]}",
		"spec.destinations[0].cidr", "host bits", "write 203.0.113.0/24"),
	badRoute("an IPv6 CIDR", "{vip: 192.0.2.10, namespaceSelector: {}, destinations: [{cidr: '2001:db8::/32'}]}",
		"spec.destinations[0].cidr", "IPv6", "203.0.113.0/24"),
	badRoute("an IPv6 VIP", "{vip: '2001:db8::10', namespaceSelector: {}, destinations: [{cidr: 203.0.113.5/32}]}",
		"spec.vip", "IPv6", "192.0.2.10"),
	badRoute("port 0", "{vip: 192.0.2.10, namespaceSelector: {}, destinations: [{cidr: 203.0.113.5/32, ports: [{port: 0}]}]}",
		"spec.destinations[0].ports[0].port", "between 1 and 65535", "leave ports out"),
	badRoute("a selector that is missing", "{vip: 192.0.2.10, destinations: [{cidr: 203.0.113.5/32}]}",
		"spec.namespaceSelector", "who may use the route", "{} for every namespace"),
	badRoute("a field that does not exist", "{vip: 192.0.2.10, namespaceSelector: {}, destinatons: [{cidr: 203.0.113.5/32}]}",
		"destinatons"),
	{
		name: "two routes that overlap",
		do: func(w *world) {
			w.must(w.Manifests.WriteRoute("wide", "{vip: 192.0.2.10, namespaceSelector: {}, destinations: [{cidr: 203.0.113.0/29}]}"))
			w.must(w.Annotate(selected(1), "payments,wide"))
		},
		mend: func(w *world) {
			w.must(w.Annotate(selected(1), "payments"))
			w.must(w.Manifests.Remove("EgressRoute", "", "wide"))
		},
		words: []string{"EgressRoute wide", "203.0.113.0/29", "203.0.113.5/32 of EgressRoute payments", "the longer prefix", "except"},
	},
	{
		name: "a file that is written by half",
		do: func(w *world) {
			text, err := os.ReadFile(w.Manifests.Path("EgressRoute", "", "payments"))
			w.must(err)
			w.must(os.WriteFile(w.Manifests.Path("EgressRoute", "", "payments"), text[:len(text)/2], 0o644))
		},
		mend:  writeRoute("payments", payments),
		words: []string{"egressroute-payments.yaml", "stays in force"},
	},
	{
		name:  "a file that is no YAML",
		do:    func(w *world) { w.must(w.Manifests.WriteText("notes.yaml", "{what: [is, this")) },
		mend:  func(w *world) { w.must(os.Remove(filepath.Join(w.Manifests.Dir, "notes.yaml"))) },
		words: []string{"notes.yaml", "not YAML", "correct it"},
	},
	{
		name:  "the folder vanishes",
		do:    func(w *world) { w.must(os.Rename(w.Manifests.Dir, w.Manifests.Dir+"-away")) },
		mend:  func(w *world) { w.must(os.Rename(w.Manifests.Dir+"-away", w.Manifests.Dir)) },
		words: []string{"manifests", "the folder cannot be read", "put it back", "stays in force"},
	},
	{
		name: "two Nodes of one name",
		do: func(w *world) {
			for i, address := range []string{"192.0.2.88", "192.0.2.89"} {
				w.must(w.Manifests.WriteText(fmt.Sprintf("double-%d.yaml", i), fmt.Sprintf(
					"{apiVersion: v1, kind: Node, metadata: {name: n8}, status: {addresses: [{type: InternalIP, address: %s}]}}", address)))
			}
		},
		mend: func(w *world) {
			w.must(os.Remove(filepath.Join(w.Manifests.Dir, "double-0.yaml")))
			w.must(os.Remove(filepath.Join(w.Manifests.Dir, "double-1.yaml")))
		},
		words: []string{"Node n8", "double-0.yaml", "double-1.yaml"},
	},
}

// says waits until one Problem of the program has all the words.
func (w *world) says(role lab.Role, j int, words ...string) {
	w.t.Helper()
	w.await(func() error {
		var all []string
		for _, p := range w.status(role, j).Problems {
			text := p.String()
			if !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(text, word) }) {
				return nil
			}
			all = append(all, text)
		}
		return fmt.Errorf("%s on n%d names no problem with %q, but %q", role, j, words, all)
	})
}

// logs waits until a program has written the words: what it does may be seen before.
func (w *world) logs(role lab.Role, j int, words string) {
	w.t.Helper()
	p, err := w.Program(role, j)
	w.must(err)
	w.await(func() error {
		log, err := os.ReadFile(p.Log)
		if err == nil && !strings.Contains(string(log), words) {
			err = fmt.Errorf("the log of the %s on n%d has no %q: %s", role, j, words, log)
		}
		return err
	})
}

func (w *world) content(role lab.Role, j int) {
	w.t.Helper()
	w.await(func() error {
		if p := w.status(role, j).Problems; len(p) > 0 {
			return fmt.Errorf("%s on n%d still has problems: %v", role, j, p)
		}
		return nil
	})
}

func TestBadInputIsNamedAndHarmsNothingElse(t *testing.T) {
	t.Parallel()
	w := start(t, lab.Options{GatewayArgs: unhurried})
	w.holder()
	w.seenEventually(selected(1), partner, theVIP)
	for _, b := range badInputs {
		t.Run(b.name, func(t *testing.T) {
			w := &world{Lab: w.Lab, t: t, arp: w.arp}
			by := b.by
			if by == nil {
				by = []lab.Role{lab.Gateway, lab.Agent}
			}
			b.do(w)
			for _, role := range by {
				w.says(role, 1, b.words...)
			}
			for j := 1; j <= w.Options.Nodes; j++ {
				w.sees(selected(j), partner, theVIP)
				w.sees(unselected(j), lab.PublicAddr, w.NodeIP(j))
			}
			b.mend(w)
			for _, role := range by {
				w.content(role, 1)
			}
			w.sees(selected(1), partner, theVIP)
		})
	}
	w.noLeak()
}

// {} is every namespace, which is not the same as nothing at all.
func TestAnEmptySelectorIsEveryNamespace(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lab.Options{Nodes: 1, PodsPerNode: 1})
	w.must(w.Manifests.WriteNamespace("bare", nil, nil))
	_, err := w.AddPod(lab.PodSpec{Name: "any", Namespace: "bare", Node: 1, Annotations: map[string]string{lab.RoutesAnnotation: "payments"}})
	w.must(err)
	w.must(w.StartAll())
	w.awaitReady()
	w.seenEventually("any", partner, theVIP)
	w.noLeak()
}

// An agent whose route nobody can serve drops, and never lets the pod out otherwise.
func TestAVIPThatNobodyHoldsFailsClosed(t *testing.T) {
	t.Parallel()
	w := start(t, lab.Options{GatewayArgs: unhurried})
	w.must(w.Manifests.WriteRoute("nobody", "{vip: 192.0.2.77, namespaceSelector: {}, destinations: [{cidr: 203.0.113.9/32}]}"))
	w.must(w.Annotate(selected(2), "payments,nobody"))
	w.await(func() error {
		if as, err := w.SeenAs(selected(2), lab.PublicAddr, 300e6); err == nil {
			return fmt.Errorf("it leaves as %s", as)
		}
		return nil
	})
	w.says(lab.Gateway, 1, "EgressRoute nobody", "no gateway holds 192.0.2.77")
	w.sees(selected(2), partner, theVIP)
	w.sees(unselected(2), lab.PublicAddr, w.NodeIP(2))
	w.noLeak()
}

// misfit is a gateway that is configured unlike the others.
type misfit struct {
	name string
	args func(w *world) []string
	// heard are the words of the problem that the others have, own those of its own.
	heard, own []string
}

var misfits = []misfit{
	{
		name: "a wrong gossip key",
		args: func(w *world) []string {
			key := filepath.Join(w.Options.Dir, "other-key")
			w.must(os.WriteFile(key, []byte("another key, long enough to be one\n"), 0o600))
			return []string{"--gossip-key-file", key}
		},
		heard: []string{"Member 192.0.2.3", "uses another gossip key", "put the same key file on every member"},
		own:   []string{"uses another gossip key", "put the same key file on every member"},
	},
	{
		name:  "other --replicas",
		args:  func(*world) []string { return []string{"--replicas", "5"} },
		heard: []string{"member n3", "has replicas 5, n1 has 3", "give every member the same --replicas"},
		own:   []string{"member n3", "it abstains", "correct its configuration"},
	},
	{
		name:  "other --timing",
		args:  func(*world) []string { return []string{"--timing", "wan"} },
		heard: []string{"member n3", "has timing", "give every member the same --timing"},
		own:   []string{"member n3", "it abstains", "correct its configuration"},
	},
	{
		name:  "the --node-name of another",
		args:  func(*world) []string { return []string{"--node-name", "n2"} },
		heard: []string{"two members are named n2", "192.0.2.2", "192.0.2.3", "give one of them another name", "--node-name"},
		own:   []string{"two members are named n2", "192.0.2.2", "192.0.2.3", "give one of them another name", "--node-name"},
	},
}

// TestAMisfitIsNamedOnBothSides: the two that agree hold on whatever the third says.
func TestAMisfitIsNamedOnBothSides(t *testing.T) {
	for _, m := range misfits {
		t.Run(m.name, func(t *testing.T) {
			w := newWorld(t, lab.Options{})
			for j := 1; j <= w.Options.Nodes; j++ {
				_, err := w.StartAgent(j)
				w.must(err)
				w.await(w.ready(lab.Agent, j)) // before, nobody steers
			}
			for _, j := range []int{1, 2} {
				_, err := w.StartGateway(j)
				w.must(err)
			}
			w.awaitHolder(1, 2)
			w.seenEventually(selected(1), partner, theVIP)
			tr := w.startTraffic(1, 2, 3)

			_, err := w.StartGateway(3, m.args(w)...)
			w.must(err)
			w.says(lab.Gateway, 1, m.heard...)
			w.says(lab.Gateway, 3, m.own...)
			if v := w.status(lab.Gateway, 3).VIPs[0]; v.Held {
				t.Error("the misfit holds the VIP")
			}
			w.awaitHolder(1, 2)
			w.flowsAgain(tr, time.Now())
			w.stop(tr)
			w.noLeak()
		})
	}
}

func TestAVIPOutsideEverySubnetIsHeldByOthers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lab.Options{})
	const far = "198.51.100.10"
	for j := 1; j <= w.Options.Nodes; j++ {
		_, err := w.StartAgent(j)
		w.must(err)
		flag := far + "@eth0" // these know where it belongs
		if j == 1 {
			flag = far
		}
		_, err = w.StartGateway(j, "--vip", flag)
		w.must(err)
	}
	w.awaitReady()
	w.says(lab.Gateway, 1, "VIP "+far, "--vip", "lies in the subnet of no interface of this host", "eth0 192.0.2.1/24",
		"correct the address, or name the interface", "this replica does not stand for it")
	w.await(func() error {
		for _, j := range []int{2, 3} {
			for _, v := range w.status(lab.Gateway, j).VIPs {
				if v.VIP.String() == far && v.Held {
					return nil
				}
			}
		}
		return errors.New("nobody holds " + far)
	})
	for _, v := range w.status(lab.Gateway, 1).VIPs {
		if (v.Barred != "") != (v.VIP.String() == far) {
			t.Errorf("barred from %s: %q", v.VIP, v.Barred)
		}
	}
	w.seenEventually(selected(1), partner, theVIP)
	w.noLeak()
}

func TestEvenReplicasAreAllowedAndWarnedOf(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		gateways []int
		words    []string
	}{
		{[]int{1, 2}, []string{"Gateway n1", "--replicas 2 cannot survive the loss of either gateway", "Run 3"}},
		{[]int{1, 2, 3, 4}, []string{"Gateway n1", "--replicas 4 survives the loss of 1", "run an odd number"}},
	} {
		t.Run(fmt.Sprint(len(c.gateways)), func(t *testing.T) {
			t.Parallel()
			w := start(t, lab.Options{Nodes: len(c.gateways), GatewayNodes: c.gateways, PodsPerNode: 1})
			w.says(lab.Gateway, 1, c.words...)
			w.seenEventually(selected(1), partner, theVIP)
			w.logs(lab.Gateway, 1, c.words[1])
			w.noLeak()
		})
	}
}
