// Package charts_test tests the chart with Helm itself: what it renders, what it
// refuses, and that it says what the programs understand.
package charts_test

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
)

const chart = "sallyport"

var update = flag.Bool("update", false, "write the values into sallyport/README.md")

// helmProgram is where Helm is.
func helmProgram(t testing.TB) string {
	t.Helper()
	if path := os.Getenv("HELM"); path != "" {
		return path
	}
	path, err := exec.LookPath("helm")
	if err != nil {
		t.Fatal("helm is not here: `make helm` builds it; or set HELM to its path")
	}
	return path
}

// helm runs it without a cluster.
func helm(t testing.TB, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command(helmProgram(t), args...)
	home := t.TempDir()
	cmd.Env = append(os.Environ(), "HELM_CACHE_HOME="+home, "HELM_CONFIG_HOME="+home, "HELM_DATA_HOME="+home, "KUBECONFIG=/nonexistent")
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		return out.String(), errors.New(strings.TrimSpace(said.String()))
	}
	return out.String(), nil
}

// rendering is what `helm template` makes with the options, and one VIP if they have none.
func rendering(t testing.TB, options ...string) ([]unstructured.Unstructured, error) {
	t.Helper()
	args := append([]string{"template", "egress", chart, "--namespace", "sally", "--kube-version", "1.34"}, options...)
	if !strings.Contains(strings.Join(options, " "), "gateway.vips=") {
		args = append(args, "--set", "gateway.vips={192.0.2.10}")
	}
	text, err := helm(t, args...)
	if err != nil {
		return nil, err
	}
	var objects []unstructured.Unstructured
	for decoder := yaml.NewYAMLOrJSONDecoder(strings.NewReader(text), 4096); ; {
		var u unstructured.Unstructured
		if err := decoder.Decode(&u); errors.Is(err, io.EOF) {
			return objects, nil
		} else if err != nil {
			t.Fatalf("not YAML: %v\n%s", err, text)
		}
		if u.Object != nil {
			objects = append(objects, u)
		}
	}
}

func render(t testing.TB, options ...string) []unstructured.Unstructured {
	t.Helper()
	objects, err := rendering(t, options...)
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

// find is the one object of that kind and name.
func find(t testing.TB, objects []unstructured.Unstructured, kind, name string) unstructured.Unstructured {
	t.Helper()
	for _, u := range objects {
		if u.GetKind() == kind && u.GetName() == name {
			return u
		}
	}
	t.Fatalf("no %s %s is rendered", kind, name)
	return unstructured.Unstructured{}
}

func page(t testing.TB, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
