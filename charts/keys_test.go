package charts_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/e2e/cluster"
)

// release is the chart in a real API server, where nothing acts on it.
type release struct {
	t *testing.T
	*cluster.APIServer
	namespace string
	options   []string
}

func TestInAnAPIServer(t *testing.T) {
	server := cluster.TestAPIServer(t)
	for namespace, test := range map[string]func(release){
		"rotation": rotationNeverParts, "electorate": theElectorateIsNotChangedUnderWay, "crd": theCRDIsUpgradedAndOutlivesTheRelease,
	} {
		t.Run(namespace, func(t *testing.T) {
			r := release{t: t, APIServer: server, namespace: namespace}
			if namespace != "crd" {
				r.options = []string{"--set", "crds.install=false,fullnameOverride=" + namespace}
			}
			r.kubectl("create", "namespace", namespace)
			if err := r.helm("install"); err != nil {
				t.Fatal(err)
			}
			test(r)
		})
	}
}

func (r release) helm(verb string, options ...string) error {
	args := slices.Concat([]string{verb, "egress", chart, "-n", r.namespace, "--set", "gateway.vips={192.0.2.10}"}, r.options, options)
	_, err := r.Helm(r.t.Context(), args...)
	return err
}

func (r release) kubectl(args ...string) string {
	r.t.Helper()
	out, err := r.Kubectl(r.t.Context(), "", append([]string{"-n", r.namespace}, args...)...)
	if err != nil {
		r.t.Fatal(err)
	}
	return out
}

// keys are the lines of the key file, as the gateways would have it.
func (r release) keys() []string {
	r.t.Helper()
	text := r.kubectl("get", "secret", r.namespace+"-gossip", "-o", `go-template={{.data.key | base64decode}}`)
	if !strings.HasSuffix(text, "\n") {
		r.t.Errorf("the key file %q ends within a line", text)
	}
	return strings.Split(strings.TrimSpace(text), "\n")
}

// wait lets the time pass that a step has to wait for the one before.
func (r release) wait() {
	r.t.Helper()
	r.kubectl("annotate", "--overwrite", "secret", r.namespace+"-gossip", fmt.Sprintf("sallyport.dev/rotated=%d", time.Now().Add(-4*time.Minute).Unix()))
}

// At any time a gateway may still have the key file of one step before: the key that
// either uses has to be one that the other knows.
func rotationNeverParts(r release) {
	t := r.t
	first := r.keys()
	if len(first) != 1 || len(first[0]) < 40 {
		t.Fatalf("keys at first: %q", first)
	}
	if err := r.helm("upgrade", "--set", "logLevel=debug"); err != nil {
		t.Fatal(err)
	}
	if kept := r.keys(); !slices.Equal(kept, first) {
		t.Fatalf("an upgrade changed the keys from %q to %q", first, kept)
	}
	before := first
	for step := 1; step <= 4; step++ {
		rotation := fmt.Sprintf("gossip.rotation=%d", step)
		if step > 1 {
			if err := r.helm("upgrade", "--set", rotation); err == nil || !strings.Contains(err.Error(), "try again in") {
				t.Fatalf("step %d too early: %v", step, err)
			}
		}
		r.wait()
		if err := r.helm("upgrade", "--set", fmt.Sprintf("gossip.rotation=%d", step+1)); err == nil || !strings.Contains(err.Error(), "cannot be next") {
			t.Fatalf("step %d left out: %v", step, err)
		}
		if err := r.helm("upgrade", "--set", rotation); err != nil {
			t.Fatal(err)
		}
		now := r.keys()
		if !slices.Contains(now, before[0]) || !slices.Contains(before, now[0]) {
			t.Errorf("step %d: gateways with %q and with %q do not understand each other", step, before, now)
		}
		if err := r.helm("upgrade", "--set", rotation+",logLevel=debug"); err != nil {
			t.Fatal(err)
		}
		if kept := r.keys(); !slices.Equal(kept, now) {
			t.Errorf("step %d: an upgrade that is none changed the keys", step)
		}
		if step%3 == 0 {
			if len(now) != 1 || slices.Contains(first, now[0]) {
				t.Errorf("after %d steps the keys are %q", step, now)
			}
			first = now
		}
		before = now
	}
	if err := r.helm("upgrade", "--set", "gossip.rotation=3"); err == nil || !strings.Contains(err.Error(), "cannot be next") {
		t.Errorf("a step back: %v", err)
	}
}

// Two groups of gateways that are configured differently do not hear each other.
func theElectorateIsNotChangedUnderWay(r release) {
	t := r.t
	for _, change := range []string{"gateway.replicas=5", "gateway.timing=wan"} {
		if err := r.helm("upgrade", "--set", change); err == nil || !strings.Contains(err.Error(), "scale statefulset electorate-gateway --replicas=0") {
			t.Errorf("%s while gateways run: %v", change, err)
		}
		r.kubectl("scale", "statefulset", r.namespace+"-gateway", "--replicas=0")
		if err := r.helm("upgrade", "--set", change); err != nil {
			t.Fatal(err)
		}
		if n := r.kubectl("get", "statefulset", r.namespace+"-gateway", "-o", "jsonpath={.spec.replicas}"); n == "0" {
			t.Errorf("%s: the gateways stay away", change)
		}
		r.kubectl("scale", "statefulset", r.namespace+"-gateway", "--replicas=0")
		if err := r.helm("upgrade"); err != nil { // as it was
			t.Fatal(err)
		}
	}
}

func theCRDIsUpgradedAndOutlivesTheRelease(r release) {
	t := r.t
	const crd = "crd/egressroutes.sallyport.dev"
	r.kubectl("patch", crd, "--type=json", `--patch=[{"op":"remove","path":"/spec/versions/0/additionalPrinterColumns"}]`)
	if err := r.helm("upgrade"); err != nil {
		t.Fatal(err)
	}
	if columns := r.kubectl("get", crd, "-o", "jsonpath={.spec.versions[0].additionalPrinterColumns[*].name}"); !strings.Contains(columns, "Holder") && !strings.Contains(columns, "HOLDER") {
		t.Errorf("the upgraded CRD has the columns %q", columns)
	}
	// Without hooks: nobody runs their pods here.
	if _, err := r.Helm(t.Context(), "uninstall", "egress", "-n", r.namespace, "--no-hooks"); err != nil {
		t.Fatal(err)
	}
	if left := r.kubectl("get", crd, "-o", "name"); left == "" {
		t.Error("the CRD is gone")
	}
	if left := r.kubectl("get", "all,secrets,serviceaccounts,roles,rolebindings,pdb,clusterroles,clusterrolebindings", "-o", "name"); strings.Contains(left, "egress-sallyport") {
		t.Errorf("left: %s", left)
	}
	if err := r.helm("install"); err != nil {
		t.Errorf("installed again: %v", err)
	}
}
