package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// preface stands above the first section of a new document.
const preface = `# Benchmarks

Everything here was measured by ` + "`make bench`" + ` in the lab of ` + "`e2e/lab`" + `: network namespaces on one
machine, where nodes, router and partner share the processors, and a link has neither delay nor
a limit. The figures compare ways of doing a thing on the same machine in the same run; they are no promise about
other machines. Each part is written by a command of its own, named in it.

p95 is the nearest-rank 95th percentile of the trials; of a rate, where more is better, it is the value
that 95 % of the trials reached.
`

func opening(name string) string { return "<!-- bench " + name + " -->" }
func closing(name string) string { return "<!-- end " + name + " -->" }

// splice puts a section's text into the document and leaves all else alone. A
// section that is new goes to its place in the order of the sections.
func splice(document, name, body string) (string, error) {
	part := opening(name) + "\n" + strings.TrimSpace(body) + "\n" + closing(name)
	before, rest, found := strings.Cut(document, opening(name))
	if found {
		_, after, closed := strings.Cut(rest, closing(name))
		if !closed {
			return "", fmt.Errorf("%q has no %q after it: put it back, or remove both", opening(name), closing(name))
		}
		return before + part + after, nil
	}
	later := false
	for _, s := range sections {
		if s.name == name {
			later = true
		} else if at := strings.Index(document, opening(s.name)); later && at >= 0 {
			return document[:at] + part + "\n\n" + document[at:], nil
		}
	}
	return strings.TrimRight(document, "\n") + "\n\n" + part + "\n", nil
}

func (b *bench) write(name, body string) error {
	if b.out == "-" {
		fmt.Println(body)
		return nil
	}
	text, err := os.ReadFile(b.out)
	if errors.Is(err, fs.ErrNotExist) {
		text, err = []byte(preface), nil
	}
	if err != nil {
		return fmt.Errorf("read the document: %w", err)
	}
	document, err := splice(string(text), name, body)
	if err != nil {
		return fmt.Errorf("write to %s: %w", b.out, err)
	}
	if err := os.WriteFile(b.out, []byte(document), 0o644); err != nil {
		return fmt.Errorf("write the document: %w", err)
	}
	progress("%s is in %s", name, b.out)
	return nil
}

// table renders rows as Markdown, the first row being the heading and the first
// column text.
func table(rows [][]string) string {
	var out strings.Builder
	for i, row := range rows {
		fmt.Fprintf(&out, "| %s |\n", strings.Join(row, " | "))
		if i == 0 {
			fmt.Fprintf(&out, "| --- |%s\n", strings.Repeat(" ---: |", len(row)-1))
		}
	}
	return out.String()
}
