package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"github.com/sallyport/sallyport/api/v1alpha1"
	"github.com/sallyport/sallyport/gateway"
	"github.com/sallyport/sallyport/gateway/objects"
)

// key identifies an object among all files.
type key struct{ kind, namespace, name string }

func (k key) String() string {
	if k.namespace != "" {
		return k.kind + " " + k.namespace + "/" + k.name
	}
	return k.kind + " " + k.name
}

// object is one of *gateway.Route, *gateway.Pod, *gateway.Namespace, *gateway.Node.
type object struct {
	key
	line  int    // of the document it is in; 0: not known
	path  string // in the document: "", or "items[3]." in a List
	value any
}

// contents are what one file says.
type contents struct {
	objects  []object
	problems []gateway.Problem
	// refused are the objects that are in the file but cannot be used; one without
	// a name could be any.
	refused []key
	blank   bool // nothing but white space
}

// parser reads one file's text.
type parser struct {
	path string
	objects.Intern
	contents
}

func parse(path string, text []byte, in objects.Intern) contents {
	p := parser{path: path, Intern: in}
	p.blank = len(bytes.TrimSpace(text)) == 0
	if bytes.HasPrefix(text, []byte("\xff\xfe")) || bytes.HasPrefix(text, []byte("\xfe\xff")) {
		p.refuse(document{line: 1}, "", key{}, "", gateway.Unreadable, "the text is UTF-16: save it as UTF-8")
		return p.contents
	}
	if strings.EqualFold(filepath.Ext(path), ".json") {
		p.json(bytes.TrimPrefix(text, byteOrder))
		return p.contents
	}
	for _, d := range split(text) {
		raw, err := yaml.YAMLToJSONStrict(d.text)
		if err != nil {
			p.unreadable(d, err)
			continue
		}
		p.document(d, raw)
	}
	return p.contents
}

func (p *parser) json(text []byte) {
	decoder := json.NewDecoder(bytes.NewReader(text))
	for {
		start := decoder.InputOffset()
		var raw json.RawMessage
		err := decoder.Decode(&raw)
		if errors.Is(err, io.EOF) {
			return
		}
		start += int64(len(text[start:]) - len(bytes.TrimLeft(text[start:], " \t\r\n")))
		d := document{text: text[start:decoder.InputOffset()], line: 1 + bytes.Count(text[:start], []byte("\n"))}
		if err != nil {
			var syntax *json.SyntaxError
			if errors.As(err, &syntax) {
				d.line = 1 + bytes.Count(text[:min(int(syntax.Offset), len(text))], []byte("\n"))
			}
			p.refused = append(p.refused, key{})
			p.problems = append(p.problems, gateway.Problem{
				Object: p.path, File: p.path, Line: d.line, Reason: gateway.Unreadable,
				Message: fmt.Sprintf("not JSON (%v): correct it; what was read from it before stays in force", err),
			})
			return
		}
		p.document(d, raw)
	}
}

// document is one of a file's, beginning at a line of it.
type document struct {
	text []byte
	line int
}

// split cuts at the document markers of YAML 1.2.2, section 9.1. A document ended
// by "..." must not hide those behind it.
func split(text []byte) []document {
	var all []document
	start, startLine, line := 0, 1, 1
	flush := func(end int) {
		if d := text[start:end]; hasContent(d) {
			all = append(all, document{d, startLine})
		}
	}
	for at := 0; at < len(text); line++ {
		next := len(text)
		if n := bytes.IndexByte(text[at:], '\n'); n >= 0 {
			next = at + n + 1
		}
		switch {
		case marks(text[at:next], "---"):
			flush(at)
			start, startLine = at, line
		case marks(text[at:next], "..."):
			flush(at)
			start, startLine = next, line+1
		}
		at = next
	}
	flush(len(text))
	return all
}

// byteOrder may begin a file and, in files put together, any document (YAML 1.2.2, section 5.2).
var byteOrder = []byte("\xef\xbb\xbf")

func marks(line []byte, marker string) bool {
	rest, ok := bytes.CutPrefix(bytes.TrimPrefix(line, byteOrder), []byte(marker))
	return ok && (len(rest) == 0 || bytes.IndexByte([]byte(" \t\r\n"), rest[0]) >= 0)
}

// hasContent tells a document from white space, comments and directives.
func hasContent(d []byte) bool {
	for line := range bytes.Lines(d) {
		line = bytes.TrimSpace(line)
		if len(line) > 0 && line[0] != '#' && line[0] != '%' && !bytes.Equal(line, []byte("---")) {
			return true
		}
	}
	return false
}

var yamlLine = regexp.MustCompile(`line (\d+)`)

func (p *parser) unreadable(d document, err error) {
	line := d.line
	message := strings.Join(strings.Fields(strings.TrimPrefix(err.Error(), "error converting YAML to JSON: ")), " ")
	if m := yamlLine.FindStringSubmatch(message); m != nil {
		n, _ := strconv.Atoi(m[1])
		line += n - 1
		message = strings.ReplaceAll(message, m[0], "line "+strconv.Itoa(line))
	}
	p.refused = append(p.refused, key{})
	p.problems = append(p.problems, gateway.Problem{
		Object: p.path, File: p.path, Line: line, Reason: gateway.Unreadable,
		Message: fmt.Sprintf("not YAML (%s): correct it; what was read from it before stays in force", message),
	})
}

type header struct {
	metav1.TypeMeta `json:",inline"`
	Metadata        struct {
		Name      string `json:"name"`
		Namespace string `json:"namespace"`
	} `json:"metadata"`
	Items []json.RawMessage `json:"items"`
}

// document reads one object or a List of them.
func (p *parser) document(d document, raw []byte) {
	if bytes.Equal(bytes.TrimSpace(raw), []byte("null")) {
		return
	}
	var h header
	if err := kjson.UnmarshalCaseSensitivePreserveInts(raw, &h); err != nil {
		p.refuse(d, "", key{}, "", gateway.Invalid, fmt.Sprintf("not an API object (%v): write apiVersion, kind and metadata", err))
		return
	}
	item, isList := strings.CutSuffix(h.Kind, "List")
	if !isList {
		p.object(d, "", h, raw)
		return
	}
	if h.Items == nil && !hasItems(raw) {
		p.refuse(d, "", key{}, "", gateway.Invalid, "a "+h.Kind+" without items: write them in a list named items")
	}
	for i, raw := range h.Items {
		path := fmt.Sprintf("items[%d].", i)
		var ih header
		if err := kjson.UnmarshalCaseSensitivePreserveInts(raw, &ih); err != nil {
			p.refuse(d, path, key{}, "", gateway.Invalid, fmt.Sprintf("not an API object (%v): write apiVersion, kind and metadata", err))
			continue
		}
		if ih.Kind == "" { // as the API server lists them
			ih.Kind, ih.APIVersion = item, h.APIVersion
		}
		p.object(d, path, ih, raw)
	}
}

// hasItems tells a List whose items are null, which are none, from one that has none.
func hasItems(raw []byte) bool {
	var list map[string]json.RawMessage
	_ = kjson.UnmarshalCaseSensitivePreserveInts(raw, &list) // it was read before
	_, has := list["items"]
	return has
}

var versions = map[string]string{
	v1alpha1.Kind: v1alpha1.GroupVersion.String(), "Pod": "v1", "Namespace": "v1", "Node": "v1",
}

// object reads the object at the path of a document.
func (p *parser) object(d document, path string, h header, raw []byte) {
	k := key{h.Kind, h.Metadata.Namespace, h.Metadata.Name}
	refuse := func(field, format string, args ...any) {
		p.refuse(d, path, k, field, gateway.Invalid, fmt.Sprintf(format, args...))
	}
	want, known := versions[h.Kind]
	switch {
	case h.Kind == "":
		refuse("kind", "there is no kind: write EgressRoute, Pod, Namespace or Node")
		return
	case !known:
		refuse("kind", "%s is no kind that is read here: write EgressRoute, Pod, Namespace or Node, or move it out of this folder", h.Kind)
		return
	case h.APIVersion != want:
		refuse("apiVersion", "%q is not the version of %s: write %s", h.APIVersion, h.Kind, want)
		return
	case k.name == "":
		refuse("metadata.name", "there is no name: write metadata.name")
		return
	}
	if k.kind == "Pod" {
		if k.namespace == "" {
			k.namespace = metav1.NamespaceDefault
		}
	} else if k.namespace != "" {
		k.namespace = ""
		refuse("metadata.namespace", "%s belongs to no namespace: remove metadata.namespace", h.Kind)
		return
	}
	if errs := validation.IsDNS1123Subdomain(k.name); len(errs) > 0 {
		refuse("metadata.name", "%q is not a name: write lower-case letters, digits, - and . only, with a letter or digit at both ends", k.name)
		return
	}
	value, unknown, errs := p.value(k, raw)
	for _, err := range unknown {
		at, cure := quoted(err.Error()), "correct its name or remove it"
		if meant := meantField(kinds[k.kind], at); meant != "" {
			cure = "write " + meant + ", or remove it"
		}
		p.problem(d, path, k, at, gateway.Invalid, err.Error()+": "+cure)
	}
	for _, err := range errs {
		p.problem(d, path, k, err.Field, gateway.Invalid, objects.Detail(err))
	}
	// A route with a field that is not understood could take more than its author
	// meant. Pods come from newer API servers, too.
	if len(errs) > 0 || len(unknown) > 0 && k.kind == v1alpha1.Kind {
		p.refused = append(p.refused, k)
		return
	}
	p.objects = append(p.objects, object{key: k, line: d.line, path: path, value: value})
}

// value decodes strictly: unknown are the fields that the kind has not got.
func (p *parser) value(k key, raw []byte) (value any, unknown []error, errs field.ErrorList) {
	decode := func(into any) bool {
		var err error
		if unknown, err = kjson.UnmarshalStrict(raw, into); err != nil {
			errs = field.ErrorList{wrongType(err)}
		}
		return err == nil
	}
	switch k.kind {
	case v1alpha1.Kind:
		var o v1alpha1.EgressRoute
		if decode(&o) {
			var r gateway.Route
			r, errs = objects.Route(&o)
			value = &r
		}
	case "Pod":
		var o corev1.Pod
		if decode(&o) {
			o.Namespace = k.namespace
			var pod gateway.Pod
			pod, errs = objects.Pod(&o)
			p.Pod(&pod)
			value = &pod
		}
	case "Namespace":
		var o corev1.Namespace
		if decode(&o) {
			ns := objects.Namespace(&o)
			value = &ns
		}
	case "Node":
		var o corev1.Node
		if decode(&o) {
			var n gateway.Node
			n, errs = objects.Node(&o)
			value = &n
		}
	}
	return value, unknown, errs
}

func (p *parser) refuse(d document, path string, k key, field string, reason gateway.Reason, message string) {
	p.refused = append(p.refused, k)
	p.problem(d, path, k, field, reason, message)
}

func (p *parser) problem(d document, path string, k key, field string, reason gateway.Reason, message string) {
	object := p.path
	if k.name != "" && k.kind != "" {
		object = k.String()
	}
	if field == "[]" || field == "<nil>" || field == `""` {
		field = ""
	}
	p.problems = append(p.problems, gateway.Problem{
		Object: object, File: p.path, Line: d.lineOf(path + field), Field: field, Reason: reason, Message: message,
	})
}

// quoted is the field that a strict decoder's error names.
func quoted(message string) string {
	if _, rest, ok := strings.Cut(message, `"`); ok {
		name, _, _ := strings.Cut(rest, `"`)
		return name
	}
	return ""
}

var typeError = regexp.MustCompile(`cannot unmarshal (\S+) into Go (?:struct field \w+\.(\S+)|value) of type (\S+)`)

// wrongType says what a decoder's error means to somebody who writes YAML, where
// y, no and 1 are no texts.
func wrongType(err error) *field.Error {
	m := typeError.FindStringSubmatch(err.Error())
	if m == nil {
		return &field.Error{Type: field.ErrorTypeTypeInvalid, Detail: err.Error() + ": correct it"}
	}
	return &field.Error{Type: field.ErrorTypeTypeInvalid, Field: m[2],
		Detail: fmt.Sprintf("is a %s where a %s is wanted: correct it; texts such as y, no and 1 need quotes", m[1], m[3])}
}
