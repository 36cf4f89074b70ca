// Package kube_test runs what talks to the Kubernetes API against a real API server
// and its etcd, without nodes.
package kube_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/sallyport/sallyport/e2e/cluster"
)

// server is the one API server of all these tests.
var server *cluster.APIServer

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	ctx := context.Background()
	if os.Getenv(cluster.ProgramsEnv) == "" {
		fmt.Fprintf(os.Stderr, "%s is not set to the folder of Kubernetes' programs: run make e2e, which builds them\n", cluster.ProgramsEnv)
		return 1
	}
	programs, err := cluster.Programs(ctx, os.Stderr)
	if err == nil {
		server, err = cluster.StartAPIServer(ctx, programs)
	}
	if err == nil {
		defer func() {
			if err := server.Close(); err != nil {
				fmt.Fprintln(os.Stderr, "end the API server:", err)
			}
		}()
		err = install(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

var crdFile = filepath.Join("..", "..", "charts", "sallyport", "files", "crds", "sallyport.dev_egressroutes.yaml")

// install makes EgressRoutes known, as the chart does.
func install(ctx context.Context) error {
	if _, err := server.Kubectl(ctx, "", "apply", "--server-side", "--force-conflicts", "-f", crdFile); err != nil {
		return err
	}
	_, err := server.Kubectl(ctx, "", "wait", "--for=condition=Established", "--timeout=60s", "crd/egressroutes.sallyport.dev")
	return err
}

// kubectl must succeed, in a test's cleanup too.
func kubectl(t testing.TB, input string, args ...string) {
	t.Helper()
	if _, err := server.Kubectl(context.WithoutCancel(t.Context()), input, args...); err != nil {
		t.Fatal(err)
	}
}

// as gives a kubeconfig with the rights of another user only.
func as(t testing.TB, user string) string {
	t.Helper()
	config, err := clientcmd.LoadFromFile(server.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range config.AuthInfos {
		a.Impersonate = user
	}
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*config, file); err != nil {
		t.Fatal(err)
	}
	return file
}

// down takes the API server away until up is called, at the test's end at the latest.
func down(t testing.TB) (up func()) {
	t.Helper()
	if err := server.Kill(cluster.KubeAPIServer); err != nil {
		t.Fatal(err)
	}
	isUp := false
	up = func() {
		t.Helper()
		if isUp {
			return
		}
		isUp = true
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := server.Start(cluster.KubeAPIServer); err != nil {
			t.Fatal(err)
		}
		if err := server.AwaitReady(ctx); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(up)
	return up
}

// eventually waits for a condition; what says which, when it does not come true.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.NewTimer(time.Minute)
	defer deadline.Stop()
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for !cond() {
		select {
		case <-deadline.C:
			t.Fatalf("not within a minute: %s", what)
		case <-look.C:
		}
	}
}

func contains(text string, parts ...string) bool {
	for _, p := range parts {
		if !strings.Contains(text, p) {
			return false
		}
	}
	return true
}
