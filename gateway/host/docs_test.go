package host

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// statusFields are the names of a type's fields in JSON, with those of the types
// it is made of.
func statusFields(t reflect.Type, into map[string]bool) {
	switch t.Kind() {
	case reflect.Slice, reflect.Map, reflect.Pointer:
		statusFields(t.Elem(), into)
	case reflect.Struct:
		for f := range t.Fields() {
			if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" {
				into[name] = true
				statusFields(f.Type, into)
			}
		}
	}
}

func TestCommandsPageHasEveryStatusField(t *testing.T) {
	const file = "../../docs/commands.md"
	page, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{}
	statusFields(reflect.TypeFor[Status](), want)
	if len(want) < 30 {
		t.Fatalf("only %d fields of a Status found", len(want))
	}
	for w := range want {
		if !strings.Contains(string(page), "`"+w+"`") {
			t.Errorf("%s does not say what %s is", file, w)
		}
	}
}

func TestOperationsPageHasExactlyTheMetrics(t *testing.T) {
	const file = "../../docs/operations.md"
	page, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| `(sallyport_[a-z_]+)` \\|").FindAllStringSubmatch(string(page), -1) {
		documented[row[1]] = true
	}
	descs := make(chan *prometheus.Desc, 100)
	NewMetrics().Describe(descs)
	statusCollector{}.Describe(descs)
	close(descs)
	name := regexp.MustCompile(`fqName: "([^"]+)"`)
	for d := range descs {
		n := name.FindStringSubmatch(d.String())[1]
		if !documented[n] {
			t.Errorf("%s does not say what %s is", file, n)
		}
		delete(documented, n)
	}
	for n := range documented {
		t.Errorf("%s has %s, which nobody gives", file, n)
	}
}
