package manifest

import (
	"strings"
	"testing"

	"github.com/sallyport/sallyport/gateway/objects"
)

// What editors put before a text must not hide any of it.
func TestWhatEditorsWrite(t *testing.T) {
	const bom = "\xef\xbb\xbf"
	ns := func(name string) string { return "kind: Namespace\napiVersion: v1\nmetadata: {name: " + name + "}\n" }
	for _, c := range []struct {
		name, file, text string
		objects          int
		says             string // "": no problem
	}{
		{"JSON with a byte order mark", "a.json", bom + `{"kind":"Namespace","apiVersion":"v1","metadata":{"name":"a"}}`, 1, ""},
		{"files put together", "a.yaml", bom + "---\n" + ns("a") + bom + "---\n" + ns("b"), 2, ""},
		{"Windows line ends", "a.yaml", bom + strings.ReplaceAll(ns("a")+"---\n"+ns("b"), "\n", "\r\n"), 2, ""},
		{"UTF-16", "a.yaml", "\xff\xfek\x00", 0, "a.yaml:1: the text is UTF-16: save it as UTF-8"},
		{"a list of nothing", "a.yaml", "kind: List\napiVersion: v1\nitem: []\n", 0, "a List without items"},
		{"a list that speaks of items", "a.yaml", "kind: List\napiVersion: v1\nmetadata: {annotations: {items: none}}\n", 0, "a List without items"},
		{"a list of null", "a.yaml", "kind: List\napiVersion: v1\nitems: null\n", 0, ""},
		{"a misspelt field", "a.yaml", "kind: EgressRoute\napiVersion: sallyport.dev/v1alpha1\nmetadata: {name: a}\nspec:\n  destinatons: []\n", 0, `a.yaml:5: EgressRoute a: spec.destinatons: unknown field "spec.destinatons": write destinations, or remove it`},
		{"a misspelt field of a list", "a.yaml", "kind: EgressRoute\napiVersion: sallyport.dev/v1alpha1\nmetadata: {name: a}\nspec:\n  destinations: [{cdir: 203.0.113.0/24}]\n", 0, "write cidr, or remove it"},
		{"a misspelt field of every kind's", "a.yaml", "kind: Namespace\napiVersion: v1\nmetadata: {name: a, label: {}}\n", 1, "write labels, or remove it"},
		{"a field like no other", "a.yaml", "kind: Namespace\napiVersion: v1\nmetadata: {name: a}\nshoe: 1\n", 1, "correct its name or remove it"},
		{"an empty list", "a.yaml", "kind: List\napiVersion: v1\nitems: []\n", 0, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := parse(c.file, []byte(c.text), objects.NewIntern())
			var said []string
			for _, p := range got.problems {
				said = append(said, p.String())
			}
			all := strings.Join(said, "\n")
			if len(got.objects) != c.objects || (c.says == "") != (all == "") || !strings.Contains(all, c.says) {
				t.Errorf("%d objects, said %q", len(got.objects), all)
			}
		})
	}
}
