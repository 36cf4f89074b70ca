package main

import (
	"context"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/doctor"
	"github.com/sallyport/sallyport/gateway/replica"
	"github.com/sallyport/sallyport/gateway/report"
	"github.com/sallyport/sallyport/snat"
	"github.com/sallyport/sallyport/steer"
	"github.com/sallyport/sallyport/trace"
)

const troubleshootingPage = "../../docs/troubleshooting.md"

// constants are the values of a package's string constants of a type.
func constants(t *testing.T, folder, typ string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	var values []string
	for _, file := range files {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			v, ok := n.(*ast.ValueSpec)
			if !ok {
				return true
			}
			if id, ok := v.Type.(*ast.Ident); !ok || id.Name != typ {
				return true
			}
			for _, e := range v.Values {
				if lit, ok := e.(*ast.BasicLit); ok {
					value, err := strconv.Unquote(lit.Value)
					if err != nil {
						t.Fatal(err)
					}
					values = append(values, value)
				}
			}
			return true
		})
	}
	if len(values) < 5 {
		t.Fatalf("%s has %d constants of type %s: look where they went", folder, len(values), typ)
	}
	return values
}

// Each reason, check and step has an entry, and nothing else has.
func TestTroubleshootingPageHasEveryEntry(t *testing.T) {
	var checks []string
	for _, c := range doctor.Checks {
		checks = append(checks, c.Name)
	}
	text := page(t, troubleshootingPage)
	for kind, names := range map[string][]string{
		"Problem": append(constants(t, "../../gateway", "Reason"), constants(t, "../../election/gossip", "Reason")...),
		"Doctor":  checks,
		"Trace":   trace.Steps,
	} {
		var has []string
		for _, m := range regexp.MustCompile(`(?m)^### `+kind+`: (.+)$`).FindAllStringSubmatch(text, -1) {
			has = append(has, m[1])
		}
		for _, name := range names {
			if !slices.Contains(has, name) {
				t.Errorf("%s has no entry: write ### %s: %s", troubleshootingPage, kind, name)
			}
		}
		for _, name := range has {
			if !slices.Contains(names, name) {
				t.Errorf("%s has the entry %s: %s, which nothing prints", troubleshootingPage, kind, name)
			}
		}
	}
	rows := append(snat.Refusals(), steer.Strayed, steer.Stranger, steer.Unknown, steer.NotSelected, replica.Fenced)
	for _, name := range append(rows, report.Accepted, report.Invalid, report.NotAccepted, report.Programmed, report.NoHolder, report.ApplyFailed, report.ClaimFailed, report.VIPConflict) {
		if !regexp.MustCompile("(?m)^\\|.*`" + name + "`.*\\|$").MatchString(text) {
			t.Errorf("%s has no row of %s", troubleshootingPage, name)
		}
	}
}

// What a start refuses is what the page shows, in its words.
func TestTroubleshootingPageHasWhatAStartRefuses(t *testing.T) {
	_, section, found := strings.Cut(page(t, troubleshootingPage), "\n## What a start refuses\n")
	section, _, ended := strings.Cut(section, "\n## ")
	if !found || !ended {
		t.Fatalf("%s does not say what a start refuses", troubleshootingPage)
	}
	said := map[*regexp.Regexp]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(.+?)` \\| .*\\|$").FindAllStringSubmatch(section, -1) {
		parts := strings.Split(strings.ReplaceAll(m[1], `\|`, "|"), "…")
		for i := range parts {
			parts[i] = regexp.QuoteMeta(parts[i])
		}
		said[regexp.MustCompile("^"+strings.Join(parts, ".*")+"$")] = false
	}
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte("too short\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"gateway"},
		{"agent"},
		{"gateway", "--source", "nowhere", "--vip", "here", "--replicas", "0", "--timing", "slow", "--gossip-port", "0", "--flows-port", "0", "--handover-timeout", "0s", "--conntrack-zone", "0"},
		{"gateway", "--node-ip", "192.0.2.1", "--source", "dir:/", "--vip", "192.0.2.10", "--vip", "192.0.2.10@eth0", "--gossip-key-file", key},
		{"gateway", "--node-ports", "all"},
		{"gateway", "--source", "kube", "--kubeconfig", "/nonexistent"},
		{"agent", "--mark-mask", "0x5", "--node-ip", "192.0.2.1", "--source", "dir:/"},
		{"agent", "--log-level", "loud"},
	} {
		root := rootCommand()
		root.SetArgs(args)
		root.SetOut(io.Discard)
		root.SetErr(io.Discard)
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // whoever is not refused ends at once
		err := root.ExecuteContext(ctx)
		if err == nil {
			t.Errorf("sallyport %s is not refused", strings.Join(args, " "))
			continue
		}
		for line := range strings.SplitSeq(err.Error(), "\n") {
			known := false
			for message := range said {
				if message.MatchString(line) {
					said[message], known = true, true
				}
			}
			if !known {
				t.Errorf("%s does not have what sallyport %s says: %s", troubleshootingPage, strings.Join(args, " "), line)
			}
		}
	}
	for message, is := range said {
		if !is {
			t.Errorf("%s has %s, which no start says", troubleshootingPage, message)
		}
	}
}

// warnings are the constant messages that the programs log above info, and for each the file
// that says it.
func warnings(t *testing.T) map[string]string {
	t.Helper()
	said := map[string]string{"memberlist": "election/gossip/lines.go"}
	err := filepath.WalkDir("../..", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (entry.Name() == "e2e" || entry.Name() == ".git"):
			return filepath.SkipDir
		case filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(f, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) == 0 {
				return true
			}
			method, ok := call.Fun.(*ast.SelectorExpr)
			// Keeper.say says it as an error.
			says := ok && method.Sel.Name == "say" && filepath.Base(filepath.Dir(path)) == "keep"
			if !ok || method.Sel.Name != "Warn" && method.Sel.Name != "Error" && !says {
				return true
			}
			lit, ok := call.Args[0].(*ast.BasicLit)
			if !ok || lit.Kind != token.STRING {
				return true
			}
			// A test's own Error, of a suite that others call, logs nothing.
			if receiver, ok := method.X.(*ast.Ident); ok && receiver.Name == "t" {
				return true
			}
			message, err := strconv.Unquote(lit.Value)
			if err != nil {
				t.Fatal(err)
			}
			said[message] = path
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(said) < 50 {
		t.Fatalf("only %d messages found: look where they went", len(said))
	}
	return said
}

// What the log warns of is on the page, in its words, and nothing else is.
func TestTroubleshootingPageHasWhatTheLogWarnsOf(t *testing.T) {
	_, section, _ := strings.Cut(page(t, troubleshootingPage), "\n## What the log warns of\n")
	section, _, _ = strings.Cut(section, "\n## ")
	has := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\| .+ \\|$").FindAllStringSubmatch(section, -1) {
		if has[m[1]] {
			t.Errorf("%s has %q twice", troubleshootingPage, m[1])
		}
		has[m[1]] = true
	}
	said := warnings(t)
	for message, file := range said {
		if !has[message] {
			t.Errorf("%s does not have what %s logs: %s", troubleshootingPage, file, message)
		}
	}
	for message := range has {
		if said[message] == "" {
			t.Errorf("%s has %q, which nothing logs", troubleshootingPage, message)
		}
	}
}
