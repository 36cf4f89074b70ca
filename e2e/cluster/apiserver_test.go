package cluster

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"
)

func TestAnAPIServerAlone(t *testing.T) {
	a := TestAPIServer(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	pod := `{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: default}, spec: {containers: [{name: c, image: none}]}}`
	if _, err := a.Kubectl(ctx, pod, "apply", "-f", "-"); err != nil {
		t.Fatal(err)
	}
	for _, program := range []string{KubeAPIServer, Etcd} {
		if err := a.Kill(program); err != nil {
			t.Fatal(err)
		}
		if err := a.Start(program); err != nil {
			t.Fatal(err)
		}
		if err := a.AwaitReady(ctx); err != nil {
			t.Fatal(err)
		}
		if out, err := a.Kubectl(ctx, "", "get", "pods", "-o", "name"); err != nil || out != "pod/p\n" {
			t.Errorf("after %s was killed and started: %q, %v", program, out, err)
		}
	}
	if _, err := a.Kubectl(ctx, "", "get", "nothing"); err == nil || !strings.Contains(err.Error(), "the server doesn't have a resource type") {
		t.Errorf("%v", err)
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(a.Dir); err == nil {
		t.Errorf("%s is left", a.Dir)
	}
}
