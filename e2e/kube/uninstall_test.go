package kube_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/sallyport/sallyport/gateway/kube/uninstall"
)

// leaving is a release in a namespace of its own, whose DaemonSets no controller follows.
type leaving struct {
	t         *testing.T
	namespace string
	log       bytes.Buffer
}

func newLeaving(t *testing.T, desired int) *leaving {
	l := &leaving{t: t, namespace: strings.ToLower(t.Name())}
	workload := func(kind, name string) {
		l.do(fmt.Sprintf(`{apiVersion: apps/v1, kind: %s, metadata: {name: %s}, spec: {serviceName: s, selector: {matchLabels: {app: %s}},
			template: {metadata: {labels: {app: %s}}, spec: {containers: [{name: c, image: none}]}}}}`, kind, name, name, name), "create", "--validate=false", "-f", "-")
	}
	l.do("", "create", "namespace", l.namespace)
	t.Cleanup(func() { l.do("", "delete", "namespace", l.namespace, "--wait=false") })
	workload("StatefulSet", "gateway")
	workload("DaemonSet", "agent")
	workload("DaemonSet", "cleanup")
	l.do("", "patch", "daemonset", "cleanup", "--subresource=status", "--type=merge", "-p",
		fmt.Sprintf(`{"status":{"observedGeneration":1,"desiredNumberScheduled":%d,"currentNumberScheduled":0,"numberMisscheduled":0,"numberReady":0}}`, desired))
	return l
}

func (l *leaving) do(input string, args ...string) string {
	l.t.Helper()
	out, err := server.Kubectl(context.Background(), input, append([]string{"-n", l.namespace}, args...)...)
	if err != nil {
		l.t.Fatal(err)
	}
	return out
}

// pod makes the cleaning pod of a node, and gives it a status.
func (l *leaving) pod(node, status string) {
	l.t.Helper()
	l.do(fmt.Sprintf(`{apiVersion: v1, kind: Pod, metadata: {name: cleanup-%s, labels: {app: cleanup}}, spec: {containers: [{name: c, image: none}],
		affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchFields: [{key: metadata.name, operator: In, values: [%s]}]}]}}}}}`, node, node), "create", "-f", "-")
	l.status(node, status)
}

func (l *leaving) status(node, status string) {
	l.t.Helper()
	l.do("", "patch", "pod", "cleanup-"+node, "--subresource=status", "--type=merge", "-p", `{"status":`+status+`}`)
}

// node makes a Node that is ready or not.
func (l *leaving) node(name, ready string) {
	l.t.Helper()
	l.do(fmt.Sprintf(`{apiVersion: v1, kind: Node, metadata: {name: %s}}`, name), "create", "-f", "-")
	l.t.Cleanup(func() { l.do("", "delete", "node", name, "--wait=false") })
	l.do("", "patch", "node", name, "--subresource=status", "--type=merge", "-p", `{"status":{"conditions":[{"type":"Ready","status":"`+ready+`"}]}}`)
}

func (l *leaving) run(timeout, absentAfter time.Duration) error {
	l.t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", server.Kubeconfig)
	if err != nil {
		l.t.Fatal(err)
	}
	u, err := uninstall.New(config, uninstall.Config{
		Namespace: l.namespace, Gateway: "gateway", Agent: "agent", Cleanup: "cleanup",
		Timeout: timeout, AbsentAfter: absentAfter, Interval: 20 * time.Millisecond,
	}, slog.New(slog.NewTextHandler(&l.log, nil)))
	if err != nil {
		l.t.Fatal(err)
	}
	return u.Run(l.t.Context())
}

const (
	cleanNode = `{"conditions":[{"type":"Ready","status":"True"}]}`
	dirtyNode = `{"initContainerStatuses":[{"name":"cleanup","image":"i","imageID":"i","ready":false,"restartCount":3,
		"state":{"waiting":{"reason":"CrashLoopBackOff"}},"lastState":{"terminated":{"exitCode":1,"message":"sallyport: remove nftables rules: busy"}}}]}`
	noRoom = `{"conditions":[{"type":"PodScheduled","status":"False","reason":"Unschedulable","message":"1 node(s) didn't have free ports"}]}`
)

func TestUninstallWaitsUntilEveryNodeIsClean(t *testing.T) {
	l := newLeaving(t, 2)
	l.node("clean-a", "True")
	l.node("clean-b", "True")
	l.pod("clean-a", cleanNode)
	l.pod("clean-b", noRoom)
	done := make(chan error, 1)
	go func() { done <- l.run(time.Minute, time.Millisecond) }()
	l.do("", "wait", "--for=delete", "statefulset/gateway", "daemonset/agent", "--timeout=50s")
	select {
	case err := <-done:
		t.Fatalf("did not wait for the second node: %v", err)
	default:
	}
	l.status("clean-b", cleanNode)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if left := l.do("", "get", "daemonset", "-o", "name"); left != "daemonset.apps/cleanup\n" {
		t.Errorf("left: %s", left)
	}
}

func TestUninstallNamesAndLeavesANodeThatIsNotReady(t *testing.T) {
	l := newLeaving(t, 3)
	l.node("absent-a", "True")
	l.node("absent-b", "Unknown")
	l.pod("absent-a", cleanNode)
	l.pod("absent-b", `{}`)
	l.pod("absent-c", `{}`) // its Node is gone
	if err := l.run(time.Minute, time.Millisecond); err != nil {
		t.Fatal(err)
	}
	for _, node := range []string{"absent-b", "absent-c"} {
		if !strings.Contains(l.log.String(), "not ready and was left") || !strings.Contains(l.log.String(), "node="+node) {
			t.Errorf("does not name %s:\n%s", node, l.log.String())
		}
	}
}

func TestUninstallSaysWhatKeepsANode(t *testing.T) {
	l := newLeaving(t, 3)
	for _, node := range []string{"kept-a", "kept-b", "kept-c"} {
		l.node(node, "True")
	}
	l.pod("kept-a", cleanNode)
	l.pod("kept-b", dirtyNode)
	l.pod("kept-c", noRoom)
	err := l.run(3*time.Second, time.Millisecond)
	if err == nil {
		t.Fatal("was content")
	}
	for _, want := range []string{"2 nodes are not clean", "node kept-b: cleaning it did not work: sallyport: remove nftables rules: busy", "node kept-c:", "didn't have free ports"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the message has not %q:\n%v", want, err)
		}
	}
}

func TestUninstallOfNoNodeIsAMistake(t *testing.T) {
	l := newLeaving(t, 0)
	if err := l.run(3*time.Second, time.Millisecond); err == nil || !strings.Contains(err.Error(), "uninstall.nodeSelector") {
		t.Errorf("%v", err)
	}
}
