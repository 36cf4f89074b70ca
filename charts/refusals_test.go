package charts_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// What the templates refuse has an entry in the documentation, by the value that the
// message begins with.
func TestEachRefusalHasAnEntry(t *testing.T) {
	page, err := os.ReadFile("../docs/troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("sallyport/templates/*")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`\bfail (?:\(printf )?"([^"]+)"`).FindAllStringSubmatch(string(text), -1) {
			value, _, _ := strings.Cut(m[1], ":")
			if strings.HasPrefix(value, "%s and %s are both") {
				value = "ports"
			}
			want[value] = true
		}
	}
	if len(want) < 5 {
		t.Fatalf("the templates refuse only %v: look where the refusals went", want)
	}
	has := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^### Chart: (.+)$`).FindAllStringSubmatch(string(page), -1) {
		has[m[1]] = true
		if !want[m[1]] {
			t.Errorf("the entry Chart: %s is of no refusal", m[1])
		}
	}
	for value := range want {
		if !has[value] {
			t.Errorf("write an entry ### Chart: %s", value)
		}
	}
}
