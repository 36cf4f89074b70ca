package charts_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// powers are a role's, a line for each. The core group prints as nothing.
func powers(t *testing.T, role unstructured.Unstructured) []string {
	t.Helper()
	rules, _, err := unstructured.NestedSlice(role.Object, "rules")
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, r := range rules {
		rule := r.(map[string]any)
		line := fmt.Sprint(rule["verbs"], " ", rule["apiGroups"], " ", rule["resources"])
		if names := rule["resourceNames"]; names != nil {
			line += fmt.Sprint(" ", names)
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	return lines
}

func TestRolesGiveWhatIsUsedAndNothingElse(t *testing.T) {
	want := map[string][]string{
		"ClusterRole egress-sallyport-gateway": {
			"[list watch] [] [pods namespaces nodes]",
			"[list watch] [sallyport.dev] [egressroutes]",
			"[patch] [sallyport.dev] [egressroutes/status]",
		},
		"Role egress-sallyport-gateway": {"[create] [events.k8s.io] [events]"},
		"ClusterRole egress-sallyport-agent": {
			"[create] [events.k8s.io] [events]",
			"[list watch] [] [pods namespaces nodes]",
			"[list watch] [sallyport.dev] [egressroutes]",
		},
		"ClusterRole egress-sallyport-uninstall": {"[get] [] [nodes]"},
		"Role egress-sallyport-uninstall": {
			"[delete] [apps] [daemonsets] [egress-sallyport-agent]",
			"[delete] [apps] [statefulsets] [egress-sallyport-gateway]",
			"[get] [apps] [daemonsets] [egress-sallyport-cleanup]",
			"[list] [] [pods]",
		},
	}
	found := 0
	for _, u := range render(t) {
		switch u.GetKind() {
		case "ClusterRole", "Role":
			found++
			name := u.GetKind() + " " + u.GetName()
			if got := powers(t, u); !slices.Equal(got, want[name]) {
				t.Errorf("%s may\n%q\nnot\n%q", name, got, want[name])
			}
		}
	}
	if found != len(want) {
		t.Errorf("%d roles, not %d", found, len(want))
	}
}

func TestPodsHaveTheCapabilitiesTheyNeedAndNothingElse(t *testing.T) {
	capabilities := map[string]string{
		"gateway": "[NET_ADMIN NET_RAW SYS_NICE]", "agent": "[NET_ADMIN NET_RAW]",
		"cleanup": "[NET_ADMIN NET_RAW]", "clean": "[NET_ADMIN NET_RAW]", "uninstall": "[]",
	}
	for _, u := range render(t) {
		if !slices.Contains([]string{"StatefulSet", "DaemonSet", "Job"}, u.GetKind()) {
			continue
		}
		pod, _, _ := unstructured.NestedMap(u.Object, "spec", "template", "spec")
		if profile, _, _ := unstructured.NestedString(pod, "securityContext", "seccompProfile", "type"); profile != "RuntimeDefault" {
			t.Errorf("%s: seccomp profile %q", u.GetName(), profile)
		}
		for _, field := range []string{"hostPID", "hostIPC"} {
			if on, _, _ := unstructured.NestedBool(pod, field); on {
				t.Errorf("%s: has %s", u.GetName(), field)
			}
		}
		for _, c := range containers(t, u) {
			name := c["name"].(string)
			s, _, _ := unstructured.NestedMap(c, "securityContext")
			if s["readOnlyRootFilesystem"] != true || s["allowPrivilegeEscalation"] != false || s["privileged"] == true {
				t.Errorf("%s: security context %v", name, s)
			}
			drop, _, _ := unstructured.NestedStringSlice(s, "capabilities", "drop")
			add, _, _ := unstructured.NestedStringSlice(s, "capabilities", "add")
			want, known := capabilities[name]
			if fmt.Sprint(drop) != "[ALL]" || fmt.Sprint(add) != want || !known {
				t.Errorf("%s: drops %v, adds %v, not %s", name, drop, add, want)
			}
		}
	}
}

// What holds a token must use it.
func TestTokensAreWhereTheyAreUsed(t *testing.T) {
	objects := render(t)
	cleanup := find(t, objects, "DaemonSet", "egress-sallyport-cleanup")
	if mounted, found, _ := unstructured.NestedBool(cleanup.Object, "spec", "template", "spec", "automountServiceAccountToken"); !found || mounted {
		t.Error("the cleaning pods have a token")
	}
	accounts := map[string]bool{}
	for kind, name := range map[string]string{"StatefulSet": "gateway", "DaemonSet": "agent", "Job": "uninstall"} {
		account, _, _ := unstructured.NestedString(find(t, objects, kind, "egress-sallyport-"+name).Object, "spec", "template", "spec", "serviceAccountName")
		accounts[account] = true
		find(t, objects, "ServiceAccount", account)
	}
	if len(accounts) != 3 {
		t.Errorf("accounts are shared: %v", accounts)
	}
}

// Helm gives its hooks their order, and none of them may stay.
func TestTheHooksGoInOrderAndGo(t *testing.T) {
	weights := map[string]string{"DaemonSet": "0", "Job": "1"}
	hooks := 0
	for _, u := range render(t) {
		a := u.GetAnnotations()
		if a["helm.sh/hook"] == "" {
			continue
		}
		hooks++
		weight, listed := weights[u.GetKind()]
		if !listed {
			weight = "-1" // accounts and roles
		}
		if a["helm.sh/hook"] != "pre-delete" || a["helm.sh/hook-weight"] != weight || a["helm.sh/hook-delete-policy"] != "before-hook-creation,hook-succeeded" {
			t.Errorf("%s %s: %v", u.GetKind(), u.GetName(), a)
		}
	}
	if hooks != 7 {
		t.Errorf("%d hooks", hooks)
	}
}

// The ports of a cleaning pod keep the scheduler from putting it beside what it cleans up after.
func TestTheCleaningPodWaitsForThePortsOfBoth(t *testing.T) {
	objects := render(t, "--set", "gateway.httpPort=1111,agent.httpPort=2222")
	ports := func(kind, name, container string) (all []int64) {
		for _, c := range containers(t, find(t, objects, kind, "egress-sallyport-"+name)) {
			list, _, _ := unstructured.NestedSlice(c, "ports")
			for _, p := range list {
				if c["name"] == container {
					all = append(all, p.(map[string]any)["containerPort"].(int64))
				}
			}
		}
		return all
	}
	cleaning := ports("DaemonSet", "cleanup", "clean")
	for _, other := range [][]int64{ports("StatefulSet", "gateway", "gateway"), ports("DaemonSet", "agent", "agent")} {
		if !slices.ContainsFunc(other, func(p int64) bool { return slices.Contains(cleaning, p) }) {
			t.Errorf("%v has none of %v", cleaning, other)
		}
	}
}

func TestTheCRDIsKeptUnlessItIsNot(t *testing.T) {
	policy := func(options ...string) string {
		crd := find(t, render(t, options...), "CustomResourceDefinition", "egressroutes.sallyport.dev")
		return crd.GetAnnotations()["helm.sh/resource-policy"]
	}
	if got := policy(); got != "keep" {
		t.Errorf("resource policy %q", got)
	}
	if got := policy("--set", "crds.keep=false"); got != "" {
		t.Errorf("crds.keep=false: resource policy %q", got)
	}
	for _, u := range render(t, "--set", "crds.install=false") {
		if u.GetKind() == "CustomResourceDefinition" {
			t.Error("crds.install=false: it is installed")
		}
	}
}

// What a node keeps beside our folder is within reach of one container, which ends at once.
func TestTheFolderAroundOursIsMountedToCleanOnly(t *testing.T) {
	for _, u := range render(t, "--set", "stateDir=/srv/state/ours") {
		pod, is, _ := unstructured.NestedMap(u.Object, "spec", "template", "spec")
		if !is {
			continue
		}
		around := map[any]bool{}
		volumes, _, _ := unstructured.NestedSlice(pod, "volumes")
		for _, v := range volumes {
			if path, _, _ := unstructured.NestedString(v.(map[string]any), "hostPath", "path"); path == "/srv/state" {
				around[v.(map[string]any)["name"]] = true
			}
		}
		for _, c := range containers(t, u) {
			mounts, _, _ := unstructured.NestedSlice(c, "volumeMounts")
			reaches := slices.ContainsFunc(mounts, func(m any) bool { return around[m.(map[string]any)["name"]] })
			if cleans := c["name"] == "cleanup"; reaches != cleans {
				t.Errorf("%s %s, container %s: mounts the folder around stateDir: %t, want %t", u.GetKind(), u.GetName(), c["name"], reaches, cleans)
			}
			if args := fmt.Sprint(c["args"]); c["name"] == "cleanup" && !strings.Contains(args, "--state-dir=/host/ours") {
				t.Errorf("the cleaning container is not told the folder: %s", args)
			}
		}
	}
}
