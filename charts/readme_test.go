package charts_test

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

const readme = chart + "/README.md"

// values gives a line of the table for each value, from its comment in values.yaml.
func values(t *testing.T, node *yaml.Node, path string) (lines []string) {
	t.Helper()
	for i := 0; i < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		name := strings.TrimPrefix(path+"."+key.Value, ".")
		comment := strings.Join(strings.Fields(strings.ReplaceAll(key.HeadComment, "# ", "")), " ")
		if value.Kind == yaml.MappingNode && comment == "" {
			lines = append(lines, values(t, value, name)...)
			continue
		}
		if comment == "" {
			t.Errorf("values.yaml: %s has no comment that says what it is", name)
		}
		var plain any
		if err := value.Decode(&plain); err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(plain)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, fmt.Sprintf("| `%s` | `%s` | %s |", name, text, comment))
	}
	return lines
}

func TestTheReadmeHasEveryValue(t *testing.T) {
	var root yaml.Node
	if err := yaml.Unmarshal([]byte(page(t, chart+"/values.yaml")), &root); err != nil {
		t.Fatal(err)
	}
	const begin, end = "<!-- values, from values.yaml: make generate -->\n", "<!-- end -->"
	before := page(t, readme)
	head, rest, found := strings.Cut(before, begin)
	_, tail, ended := strings.Cut(rest, end)
	if !found || !ended {
		t.Fatalf("%s has no place for the values: write %s%s", readme, begin, end)
	}
	after := head + begin + "| value | default | |\n|---|---|---|\n" + strings.Join(values(t, root.Content[0], ""), "\n") + "\n" + end + tail
	switch {
	case after == before:
	case *update:
		if err := os.WriteFile(readme, []byte(after), 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("%s has not the values of values.yaml: run make generate", readme)
	}
}
