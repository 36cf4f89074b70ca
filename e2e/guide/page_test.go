package guide

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

const page = `Say it:

~~~sh
export A=1
~~~

   ~~~sh outside again
   echo two
   ~~~

   ~~~text
   two
   ~~~

~~~sh background
three
~~~

Text between.

~~~text
no output
~~~

~~~yaml
a: b
~~~

~~~yaml dir/a.yaml
a: b
~~~

~~~sh n1 n2
four
~~~

~~~text
done
~~~
`

func TestBlocks(t *testing.T) {
	got, err := Blocks(strings.ReplaceAll(page, "~~~", "```"))
	want := []Block{
		{Line: 3, Commands: "export A=1\n"},
		{Line: 7, Host: "outside", Again: true, Commands: "echo two\n", Shows: "two\n"},
		{Line: 15, Background: true, Commands: "three\n"},
		{Line: 29, File: "dir/a.yaml", Commands: "a: b\n"},
		{Line: 33, Host: "n1", Commands: "four\n", Shows: "done\n"},
		{Line: 33, Host: "n2", Commands: "four\n", Shows: "done\n"},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v\ngot  %+v\nwant %+v", err, got, want)
	}
	if _, err := Blocks("```sh\necho\n"); err == nil {
		t.Error("a block without an end is taken")
	}
}

func TestSection(t *testing.T) {
	const page = "# A\n\none\n\n## B\n\n```sh\n# no heading\n```\n\n### C\n\ntwo\n\n## D\n\nthree\n"
	for heading, want := range map[string]string{
		"B": "\n\n\n\n## B\n\n```sh\n# no heading\n```\n\n### C\n\ntwo\n\n\n\n\n",
		"C": "\n\n\n\n\n\n\n\n\n\n### C\n\ntwo\n\n\n\n\n",
	} {
		if got, err := Section(page, heading); err != nil || got != want {
			t.Errorf("%s: %q %v, want %q", heading, got, err, want)
		}
	}
	for _, none := range []string{"no heading", "E"} {
		if _, err := Section(page, none); err == nil {
			t.Errorf("%s is found", none)
		}
	}
}

func TestShown(t *testing.T) {
	for _, test := range []struct {
		shows, said string
		want        bool
	}{
		{"", "anything", true},
		{"a  b\n", "a b\n", true},
		{"a\n", "a\nb\n", false},
		{"a\nb\n", "a\n", false},
		{"a…c\n", "a b c\n", true},
		{"a…c\n", "a b d\n", false},
		{"…\nz\n", "x\ny\nz\n", true},
		{"…\nz\n", "z\n", true},
		{"…\nz\n", "z\ny\n", false},
		{"a\n…\n", "a\n", true},
		{"a.c\n", "abc\n", false},
	} {
		if got := (Block{Shows: test.shows}).Shown(test.said); got != test.want {
			t.Errorf("%q for %q: %t", test.said, test.shows, got)
		}
	}
}

// read has the page read by somebody with a shell.
func read(t *testing.T, page string) error {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "page.md")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(page, "~~~", "```")), 0o644); err != nil {
		t.Fatal(err)
	}
	r := Reader{Dir: dir, Patience: 30 * time.Second, Tell: t.Logf,
		Command: func(_, name string, args ...string) (*exec.Cmd, error) { return exec.Command(name, args...), nil }}
	return r.Read(context.WithoutCancel(t.Context()), file)
}

func TestReader(t *testing.T) {
	for _, test := range []struct{ name, page, want string }{
		{"variables go on", "~~~sh\nexport A=one\n~~~\n~~~sh\necho $A\n~~~\n~~~text\none\n~~~\n", ""},
		{"a command that fails", "~~~sh\nfalse\ntrue\n~~~\n", "page.md:1: exit status 1"},
		{"a pipe that fails", "~~~sh\nfalse | cat\n~~~\n", "exit status 1"},
		{"a variable that nobody set", "~~~sh\necho $NOBODY_SET_IT\n~~~\n", "unbound"},
		{"another output", "~~~sh\necho one\n~~~\n~~~text\ntwo\n~~~\n", "it says:\none"},
		{"again until it is so", "~~~sh again\ntest -e there || { touch there; exit 1; }; echo so\n~~~\n~~~text\nso\n~~~\n", ""},
		{"in the background", "~~~sh background\necho up; trap 'rm up; exit' INT; touch up; while :; do read -rt 1 <> <(:) || :; done\n~~~\n~~~text\nup\n~~~\n~~~sh again\ntest -e up\n~~~\n", ""},
		{"ends at once in the background", "~~~sh background\necho down\n~~~\n~~~text\nup\n~~~\n", "it ended"},
		{"no commands", "text\n", "no commands"},
		{"a file", "~~~yaml sub/a.yaml\na: b\n~~~\n~~~sh\ncat sub/a.yaml\n~~~\n~~~text\na: b\n~~~\n", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := read(t, test.page)
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("%v, want %q", err, test.want)
			}
		})
	}
}
