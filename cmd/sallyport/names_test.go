package main

import (
	"encoding/json"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	"sigs.k8s.io/yaml"

	"github.com/sallyport/sallyport/api/v1alpha1"
)

// others are names in the pages that are not ours: flags of kubectl, Helm and others, fields
// of other kinds.
var others = map[string][]string{
	"flag": strings.Fields(`--create-namespace --field-selector --for --force --from-literal --help --ignore-daemonsets --image --match-set --no-hooks
		--now --profile --reuse-values --service-node-port-range --type --wait`),
	"field": strings.Fields(`spec.egressIPs spec.egressNodeSelector spec.podCIDRs status.hostIP status.items[].node`),
}

// pages are those that a user reads, by file. How it came about is in the others, and in words of its time.
func pages(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(files) < 10 {
		t.Fatalf("pages: %v, %v", files, err)
	}
	all := map[string]string{}
	for _, file := range append(files, "../../README.md", "../../charts/sallyport/README.md") {
		if name := filepath.Base(file); name != "design.md" && name != "benchmarks.md" {
			all[file] = page(t, file)
		}
	}
	return all
}

// ours is a page without what its tables say of other products.
func ours(text string) string {
	return regexp.MustCompile(`(?s)\| there \| here \|.*?\n\n`).ReplaceAllStringFunc(text, func(table string) string {
		return regexp.MustCompile(`(?m)^\|.*?\|`).ReplaceAllString(table, "|")
	})
}

// named finds what a pattern's first group matches, by name with the page that has it last.
func named(all map[string]string, pattern string) map[string]string {
	found := map[string]string{}
	for file, text := range all {
		for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(ours(text), -1) {
			found[m[1]] = file
		}
	}
	return found
}

// hold demands that every name is one of the truth or another's, and that no other's is
// listed in vain.
func hold(t *testing.T, kind string, found map[string]string, is func(name string) bool) {
	t.Helper()
	if len(found) < 3 {
		t.Errorf("only %d names of a %s found: %v", len(found), kind, slices.Collect(maps.Keys(found)))
	}
	for _, name := range slices.Sorted(maps.Keys(found)) {
		if !is(name) && !slices.Contains(others[kind], name) {
			t.Errorf("%s: there is no %s %s", found[name], kind, name)
		}
	}
	for _, name := range others[kind] {
		if found[name] == "" || is(name) {
			t.Errorf("no page names %s any more, or it is ours: take it out of the list of others", name)
		}
	}
}

func TestPagesNameOnlyFlagsThatThereAre(t *testing.T) {
	flags := map[string]bool{}
	for _, cmd := range below(rootCommand()) {
		cmd.Flags().VisitAll(func(f *pflag.Flag) { flags["--"+f.Name] = true })
	}
	rootCommand().PersistentFlags().VisitAll(func(f *pflag.Flag) { flags["--"+f.Name] = true })
	all := pages(t)
	hold(t, "flag", named(all, "(?:^|[^-\\w])(--[a-z][-a-z0-9]*)"), func(name string) bool { return flags[name] })
}

// What is written behind "sallyport" is a command, and its flags are that command's.
func TestPagesCallOnlyCommandsThatThereAre(t *testing.T) {
	seen := 0
	for file, text := range pages(t) {
		text = strings.ReplaceAll(ours(text), "\\\n", " ")
		for _, m := range regexp.MustCompile("(?m)(?:^|`|exec |\\$\\(|ExecStart=/usr/local/bin/)(?:kubectl )?sallyport ([^`\n|;&#]*)").FindAllStringSubmatch(text, -1) {
			words := strings.Fields(m[1])
			if len(words) == 0 || strings.HasPrefix(words[0], "…") {
				continue
			}
			seen++
			cmd, rest, err := rootCommand().Find(words)
			if err != nil || !cmd.HasParent() {
				t.Errorf("%s: sallyport %s: %v", file, m[1], err)
				continue
			}
			cmd.InheritedFlags()
			for _, word := range rest {
				name, _, _ := strings.Cut(strings.TrimRight(strings.TrimPrefix(word, "--"), "]).,:"), "=")
				if strings.HasPrefix(word, "--") && cmd.Flags().Lookup(name) == nil && name != "help" {
					t.Errorf("%s: sallyport %s: %s has no --%s", file, m[1], cmd.CommandPath(), name)
				}
			}
		}
	}
	if seen < 30 {
		t.Errorf("only %d calls of sallyport found", seen)
	}
}

// Operations has the metrics that there are: another test holds it to the program.
func TestPagesNameOnlyMetricsThatThereAre(t *testing.T) {
	metrics := named(map[string]string{"": page(t, "../../docs/operations.md")}, "(?m)^\\| `(sallyport_[a-z_]+)` \\|")
	histogram := regexp.MustCompile(`_(bucket|sum|count)$`)
	hold(t, "metric", named(pages(t), `\b(sallyport_[a-z_]+)`), func(name string) bool {
		_, is := metrics[name]
		_, of := metrics[histogram.ReplaceAllString(name, "")]
		return is || of
	})
}

// schema is as much of a JSON schema as names need.
type schema struct {
	Ref                  string            `json:"$ref"`
	Properties           map[string]schema `json:"properties"`
	AdditionalProperties any               `json:"additionalProperties"`
	Items                *schema           `json:"items"`
	Definitions          map[string]schema `json:"definitions"`
}

// has looks a path of names up; what is open below takes any.
func (s schema) has(root schema, path []string) bool {
	if name, ok := strings.CutPrefix(s.Ref, "#/definitions/"); ok {
		s = root.Definitions[name]
	}
	if s.Items != nil {
		return s.Items.has(root, path)
	}
	if len(path) == 0 || path[0] == "*" || len(s.Properties) == 0 && s.AdditionalProperties != false {
		return true
	}
	below, ok := s.Properties[path[0]]
	return ok && below.has(root, path[1:])
}

func TestPagesNameOnlyValuesThatThereAre(t *testing.T) {
	var root schema
	if err := json.Unmarshal([]byte(page(t, "../../charts/sallyport/values.schema.json")), &root); err != nil {
		t.Fatal(err)
	}
	is := func(name string) bool { return root.has(root, strings.Split(name, ".")) }
	tops := strings.Join(slices.Collect(maps.Keys(root.Properties)), "|")
	all := pages(t)
	found := named(all, "`((?:"+tops+")\\.[a-zA-Z][a-zA-Z.*]*)")
	maps.Copy(found, named(all, `--set(?:-string|-json)? ['"]?([\w.]+)=`))
	maps.Copy(found, named(all, `--set \S+,([\w.]+)=`))
	hold(t, "value", found, is)
	for file, values := range blocks(all) {
		for _, v := range values {
			if slices.ContainsFunc(slices.Collect(maps.Keys(v)), func(top string) bool { _, of := root.Properties[top]; return of }) && v["kind"] == nil {
				root.holds(t, file, v)
			}
		}
	}
}

// blocks are the objects and values that are written in YAML, by page.
func blocks(all map[string]string) map[string][]map[string]any {
	found := map[string][]map[string]any{}
	for file, text := range all {
		for _, pattern := range []string{"(?s)\n```yaml[^\n]*\n(.*?)```", "(?s)<<EOF\n(.*?)\nEOF"} {
			for _, block := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
				for one := range strings.SplitSeq(block[1], "\n---\n") {
					var o map[string]any
					if yaml.Unmarshal([]byte(one), &o) == nil && o != nil {
						found[file] = append(found[file], o)
					}
				}
			}
		}
	}
	return found
}

// holds demands that all of an object is in the schema.
func (s schema) holds(t *testing.T, file string, o map[string]any) {
	t.Helper()
	paths(o, nil, func(path []string) {
		if !s.has(s, path) {
			t.Errorf("%s: there is no %s", file, strings.Join(path, "."))
		}
	})
}

// paths visits the names of all that has no more names in it.
func paths(value any, at []string, visit func([]string)) {
	m, ok := value.(map[string]any)
	if !ok {
		visit(at)
		return
	}
	for name, below := range m {
		paths(below, append(at[:len(at):len(at)], name), visit)
	}
}

func TestPagesNameOnlyFieldsThatThereAre(t *testing.T) {
	var crd struct {
		Spec struct {
			Versions []struct {
				Schema struct{ OpenAPIV3Schema schema }
			}
		}
	}
	if err := yaml.Unmarshal([]byte(page(t, "../../charts/sallyport/files/crds/sallyport.dev_egressroutes.yaml")), &crd); err != nil {
		t.Fatal(err)
	}
	root := crd.Spec.Versions[0].Schema.OpenAPIV3Schema
	all := pages(t)
	hold(t, "field", named(all, "`((?:spec|status)\\.[a-zA-Z.\\[\\]]+)"), func(name string) bool {
		return root.has(root, strings.Split(strings.ReplaceAll(name, "[]", ""), "."))
	})
	routes := 0
	for file, objects := range blocks(all) {
		for _, o := range objects {
			if o["kind"] == v1alpha1.Kind {
				routes++
				root.holds(t, file, o)
			}
		}
	}
	if routes < 3 {
		t.Errorf("only %d EgressRoutes found", routes)
	}
	for name, file := range named(all, `(?:^|[^.\w])sallyport\.dev/([\w-]+)`) {
		if name != "v1alpha1" && "sallyport.dev/"+name != v1alpha1.RoutesAnnotation {
			t.Errorf("%s: there is no annotation sallyport.dev/%s", file, name)
		}
	}
}
