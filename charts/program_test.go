package charts_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// everything sets each value that adds an argument.
var everything = []string{"--set", `gateway.vips={192.0.2.10@eth0\,via=10.0.0.10,192.0.2.11},cluster.internalCIDRs={10.96.0.0/12},cluster.podCIDRs={10.244.0.0/16},agent.synRetry=100ms,agent.fastPath=true,gateway.audit.output=file,http.tokenSecret=page`}

// flags are those of a command and their defaults, as its page has them, which a test
// of the program keeps true.
func flags(t *testing.T, command string) map[string]string {
	t.Helper()
	_, rest, found := strings.Cut(page(t, "../docs/commands.md"), "<!-- flags of "+command+" -->\n")
	table, _, ended := strings.Cut(rest, "<!-- end -->")
	if !found || !ended {
		t.Fatalf("docs/commands.md has no flags of %s", command)
	}
	flags := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `(--[-a-z]+)` \\| `[A-Z_]+` \\| (.*?) \\|").FindAllStringSubmatch(table, -1) {
		flags[row[1]] = strings.Trim(row[2], "`")
	}
	return flags
}

// containers are those of a workload, those that run first included.
func containers(t *testing.T, workload unstructured.Unstructured) []map[string]any {
	t.Helper()
	var all []map[string]any
	for _, field := range []string{"initContainers", "containers"} {
		list, _, err := unstructured.NestedSlice(workload.Object, "spec", "template", "spec", field)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range list {
			all = append(all, c.(map[string]any))
		}
	}
	return all
}

func arguments(t *testing.T, container map[string]any) (command string, args []string) {
	t.Helper()
	args, _, err := unstructured.NestedStringSlice(container, "args")
	if err != nil || len(args) == 0 {
		t.Fatalf("container %v has no arguments: %v", container["name"], err)
	}
	return args[0], args[1:]
}

func TestThePodsSayWhatTheProgramsUnderstand(t *testing.T) {
	objects := render(t, everything...)
	// Not the chart's to give: what it does in another way, what is for hosts, and a file
	// that only who keeps it on the hosts can name.
	elsewhere := []string{"--name", "--node-name", "--node-ip", "--kubeconfig", "--http-token-file"}
	for name, kind := range map[string]string{
		"egress-sallyport-gateway": "StatefulSet", "egress-sallyport-agent": "DaemonSet",
		"egress-sallyport-cleanup": "DaemonSet", "egress-sallyport-uninstall": "Job",
	} {
		for _, c := range containers(t, find(t, objects, kind, name)) {
			command, args := arguments(t, c)
			known := flags(t, "sallyport "+command)
			given := map[string]bool{}
			for _, arg := range args {
				flag, _, _ := strings.Cut(arg, "=")
				if _, ok := known[flag]; !ok && flag != "--log-level" {
					t.Errorf("%s: sallyport %s has no %s", name, command, flag)
				}
				given[flag] = true
			}
			for flag := range known {
				if (command == "gateway" || command == "agent") && !given[flag] && !slices.Contains(elsewhere, flag) {
					t.Errorf("%s: %s is not given: make it a value of the chart", name, flag)
				}
			}
			env, _, _ := unstructured.NestedSlice(c, "env")
			for _, e := range env {
				variable := e.(map[string]any)["name"].(string)
				flag := "--" + strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(variable, "SALLYPORT_")), "_", "-")
				if _, ok := known[flag]; !ok {
					t.Errorf("%s: sallyport %s does not read %s", name, command, variable)
				}
			}
		}
	}
}

func TestTheValuesDefaultsAreThePrograms(t *testing.T) {
	// They differ: the source, who joins whom, and what has no default.
	chosen := []string{"--source", "--join", "--members", "--gossip-key-file", "--vip", "--cni-conf-dir", "--cni-bin-dir", "--audit-log"}
	objects := render(t, "--set", "gateway.audit.output=file") // what is given with a log only
	for name, kind := range map[string]string{"egress-sallyport-gateway": "StatefulSet", "egress-sallyport-agent": "DaemonSet"} {
		command, args := arguments(t, containers(t, find(t, objects, kind, name))[0])
		defaults := flags(t, "sallyport "+command)
		defaults["--log-level"] = flags(t, "sallyport")["--log-level"]
		for _, arg := range args {
			flag, value, _ := strings.Cut(arg, "=")
			if !slices.Contains(chosen, flag) && defaults[flag] != value {
				t.Errorf("%s: the chart has %s, sallyport %s has %s", name, arg, command, defaults[flag])
			}
		}
	}
}

func TestTheAllowlistIsServedOnlyWhenAskedFor(t *testing.T) {
	const gateway, service = "egress-sallyport-gateway", "egress-sallyport-allowlist"
	for _, u := range render(t) {
		if u.GetKind() == "Service" {
			t.Errorf("Service %s", u.GetName())
		}
	}
	objects := render(t, "--set", "allowlist.expose=true,allowlist.port=8000")
	set, svc := find(t, objects, "StatefulSet", gateway), find(t, objects, "Service", service)
	if _, args := arguments(t, containers(t, set)[0]); !slices.Contains(args, "--allowlist-listen=0.0.0.0:8000") {
		t.Errorf("%v", args)
	}
	selector, _, _ := unstructured.NestedStringMap(svc.Object, "spec", "selector")
	labels, _, _ := unstructured.NestedStringMap(set.Object, "spec", "template", "metadata", "labels")
	for key, value := range selector {
		if labels[key] != value {
			t.Errorf("the Service asks for %s=%s, the pods have %v", key, value, labels)
		}
	}
	ports, _, _ := unstructured.NestedSlice(containers(t, set)[0], "ports")
	target, _, _ := unstructured.NestedSlice(svc.Object, "spec", "ports")
	if len(selector) == 0 || !slices.ContainsFunc(ports, func(p any) bool {
		port := p.(map[string]any)
		return port["name"] == target[0].(map[string]any)["targetPort"] && port["containerPort"] == int64(8000)
	}) {
		t.Errorf("ports %v of the pods, %v of the Service", ports, target)
	}
}

func TestTheElectorateIsTheStatefulSetsPods(t *testing.T) {
	set := find(t, render(t, "--set", "gateway.replicas=5"), "StatefulSet", "egress-sallyport-gateway")
	_, args := arguments(t, containers(t, set)[0])
	want := "--members=egress-sallyport-gateway-0,egress-sallyport-gateway-1,egress-sallyport-gateway-2,egress-sallyport-gateway-3,egress-sallyport-gateway-4"
	if !slices.Contains(args, want) || !slices.Contains(args, "--replicas=5") {
		t.Errorf("%v", args)
	}
	labels, _, _ := unstructured.NestedStringMap(set.Object, "spec", "template", "metadata", "labels")
	if !slices.Contains(args, "--join=kube:sally/sallyport.dev/gateways="+labels["sallyport.dev/gateways"]) {
		t.Errorf("--join does not find pods with the labels %v: %v", labels, args)
	}
}

func TestTheAgentKnowsInsideAddresses(t *testing.T) {
	_, args := arguments(t, containers(t, find(t, render(t, everything...), "DaemonSet", "egress-sallyport-agent"))[0])
	if !slices.Contains(args, "--vip=192.0.2.10@eth0,via=10.0.0.10") || slices.Contains(args, "--vip=192.0.2.11") {
		t.Errorf("%v", args)
	}
}

func TestTheDashboardIsThatOfTheFile(t *testing.T) {
	dashboard := page(t, chart+"/files/dashboard.json")
	text, _, _ := unstructured.NestedString(find(t, render(t, "--set", "grafanaDashboard.enabled=true"), "ConfigMap", "egress-sallyport-dashboard").Object, "data", "sallyport.json")
	if strings.TrimSpace(text) != strings.TrimSpace(dashboard) {
		t.Error("the ConfigMap has another text")
	}
}
