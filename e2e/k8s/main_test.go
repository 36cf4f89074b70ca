// Package k8s proves on a real Kubernetes cluster, with real kubelets and real packets,
// what Sallyport promises. Each file is a scenario; package cluster makes the cluster.
// What loads or times the machine itself has it alone; the other scenarios mostly wait for
// programs of the cluster, and are parallel: two at a time on two processors.
//
//	E2E_PREFIX       prefix of the cluster's namespaces, for runs side by side
//	E2E_REPORTS      folder for the reports of failed scenarios, default a temporary one
//	E2E_WAVES        how long pods come and go at least, default 3m
//	E2E_KUBECONFIG   an existing cluster to use instead, see existing_test.go
//	SALLYPORT_BIN    the program in the image under test, built where it is not given
package k8s

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/sallyport/sallyport/e2e/cluster"
)

var (
	scratch string // folder that goes with the run
	image   string // archive of the image under test
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	var err error
	if scratch, err = os.MkdirTemp("", "sallyport-k8s-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(scratch)
	if os.Getenv(cluster.ProgramsEnv) == "" || os.Getenv(kubeconfigEnv) != "" {
		return m.Run() // the scenarios skip, or find another cluster
	}
	if image, err = cluster.SallyportImage(context.Background(), scratch, os.Getenv("SALLYPORT_BIN"), os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "make the image under test:", err)
		return 1
	}
	return m.Run()
}
