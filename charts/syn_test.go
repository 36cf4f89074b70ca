package charts_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// A sooner SYN costs the agents one capability and one folder, the fast path that capability,
// and only where asked for.
func TestBPFTakesWhatItNeedsAndOnlyThen(t *testing.T) {
	for _, c := range []struct {
		options             []string
		capabilities, paths string
	}{
		{nil, "[NET_ADMIN NET_RAW]", "[]"},
		{[]string{"--set", "agent.synRetry=100ms"}, "[NET_ADMIN NET_RAW BPF]", "[/sys/fs/cgroup]"},
		{[]string{"--set", "agent.fastPath=true"}, "[NET_ADMIN NET_RAW BPF]", "[]"},
	} {
		agent := find(t, render(t, c.options...), "DaemonSet", "egress-sallyport-agent")
		container := containers(t, agent)[0]
		added, _, err := unstructured.NestedStringSlice(container, "securityContext", "capabilities", "add")
		if err != nil || fmt.Sprint(added) != c.capabilities {
			t.Errorf("%v: capabilities %v, %v, want %s", c.options, added, err, c.capabilities)
		}
		gateway := containers(t, find(t, render(t, c.options...), "StatefulSet", "egress-sallyport-gateway"))[0]
		_, args := arguments(t, gateway)
		added, _, err = unstructured.NestedStringSlice(gateway, "securityContext", "capabilities", "add")
		if fast := slices.Contains(c.options, "agent.fastPath=true"); err != nil || slices.Contains(added, "BPF") != fast || slices.Contains(args, "--fast-path") != fast {
			t.Errorf("%v: the gateways' capabilities %v, %v, and arguments %v", c.options, added, err, args)
		}
		volumes, _, err := unstructured.NestedSlice(agent.Object, "spec", "template", "spec", "volumes")
		if err != nil {
			t.Fatal(err)
		}
		paths := []string{}
		for _, v := range volumes {
			if path, _, _ := unstructured.NestedString(v.(map[string]any), "hostPath", "path"); strings.HasPrefix(path, "/sys") {
				paths = append(paths, path)
			}
		}
		if fmt.Sprint(paths) != c.paths {
			t.Errorf("%v: folders of the kernel %v, want %s", c.options, paths, c.paths)
		}
		_, args = arguments(t, container)
		for flag, value := range map[string]string{"--syn-retry=100ms": "agent.synRetry=100ms", "--fast-path": "agent.fastPath=true"} {
			if on := slices.Contains(args, flag); on != slices.Contains(c.options, value) {
				t.Errorf("%v: arguments %v", c.options, args)
			}
		}
	}
}
