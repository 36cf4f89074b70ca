package e2e

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/e2e/lab"
)

// lacks waits until a program says that it has no fast path, and why.
func (w *world) lacks(role lab.Role, j int, words ...string) {
	w.t.Helper()
	w.says(role, j, append([]string{"Node " + lab.NodeName(j), "--fast-path", "all packets pass netfilter"}, words...)...)
	if f := w.status(role, j).FastPath; f == nil || f.On || f.Flows > 0 {
		w.t.Errorf("the %s of n%d says of its fast path: %+v", role, j, f)
	}
}

// Without the right to load BPF programs both say so, and everything else works.
func TestWithoutTheRightToLoadProgramsAllPassNetfilter(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lab.Options{Nodes: 2, GatewayNodes: []int{1}, AgentArgs: fastPath, GatewayArgs: slices.Concat(unhurried, fastPath)})
	const rights = "bpf,-sys_admin" // which stands for all that it once was
	_, err := w.StartWithout(rights, lab.Gateway, 1)
	w.must(err)
	for j := 1; j <= 2; j++ {
		_, err := w.StartWithout(rights, lab.Agent, j)
		w.must(err)
	}
	w.awaitReady()
	w.lacks(lab.Gateway, 1, "it needs the capabilities BPF and NET_ADMIN")
	w.lacks(lab.Agent, 2, "it needs the capabilities BPF and NET_ADMIN")
	w.seenEventually(selected(2), partner, theVIP)
	stream := w.startContent(selected(2))
	stream.goesOn()
	stream.stop()
	w.noLeak()
}

// What IPsec would encrypt does not go past it: with any policy on a gateway's host all packets pass netfilter, and
// one that is made while connections go beside is found.
func TestIPsecOnAGatewaysHostKeepsAllToNetfilter(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lab.Options{Nodes: 2, GatewayNodes: []int{1}, AgentArgs: fastPath, GatewayArgs: slices.Concat(unhurried, fastPath)})
	policy := func(verb string) {
		_, err := w.Exec(lab.NodeName(1), "ip", "xfrm", "policy", verb, "src", "192.0.2.1/32", "dst", "198.51.100.0/24", "dir", "out")
		w.must(err)
	}
	policy("add")
	w.must(w.StartAll())
	w.awaitReady()
	w.seenEventually(selected(2), partner, theVIP)
	stream := w.startContent(selected(2))
	w.lacks(lab.Gateway, 1, "IPsec")
	w.goesBeside(2)
	n := 0
	changed := func(done func() bool) {
		w.t.Helper()
		w.await(func() error { // it looks when a view comes, after a while
			n++
			w.must(w.Manifests.WriteNamespace(fmt.Sprint("other-", n%2), map[string]string{"n": fmt.Sprint(n)}, nil))
			if !done() {
				return errors.New("the gateway has not looked")
			}
			return nil
		})
	}
	on := func() bool {
		f := w.status(lab.Gateway, 1).FastPath
		return f != nil && f.On
	}
	policy("delete")
	changed(on)
	w.passesBeside(1)
	policy("add")
	changed(func() bool { return !on() })
	w.lacks(lab.Gateway, 1, "IPsec")
	stream.goesOn()
	before := w.status(lab.Gateway, 1).FastPath
	stream.goesOn()
	if now := w.status(lab.Gateway, 1).FastPath; *now != *before {
		t.Errorf("%+v went beside netfilter past IPsec, before %+v", *now, *before)
	}
	state, err := w.HostState(lab.NodeName(1))
	w.must(err)
	for _, s := range state {
		if s.Title == "tcx" && strings.Contains(s.Text, "sally_replies") {
			t.Errorf("the programs are there: %s", s.Text)
		}
	}
	stream.stop()
	w.noLeak()
}
