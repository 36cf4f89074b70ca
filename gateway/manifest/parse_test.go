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
