package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

const commandsPage = "../../docs/commands.md"

var update = flag.Bool("update", false, "write the tables of flags into docs/commands.md")

// flagTable is what the page says of a command's flags.
func flagTable(cmd *cobra.Command) string {
	var b strings.Builder
	b.WriteString("| flag | environment | default | |\n|---|---|---|---|\n")
	hostname, _ := os.Hostname()
	cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
		if f.Name == "help" {
			return
		}
		value := "`" + f.DefValue + "`"
		switch f.DefValue {
		case "", "[]":
			value = ""
		case hostname:
			value = "the host's name"
		}
		fmt.Fprintf(&b, "| `--%s` | `%s` | %s | %s |\n", f.Name, environment(f), value, f.Usage)
	})
	return b.String()
}

// below are a command and all that are under it.
func below(cmd *cobra.Command) []*cobra.Command {
	all := []*cobra.Command{cmd}
	for _, c := range cmd.Commands() {
		all = append(all, below(c)...)
	}
	return all
}

func page(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestCommandsPageHasEveryCommandAndFlag(t *testing.T) {
	before := page(t, commandsPage)
	after := before
	for _, cmd := range below(rootCommand()) {
		name := cmd.CommandPath()
		if !strings.Contains(after, "\n## "+name+"\n") {
			t.Errorf("%s has no section of %s", commandsPage, name)
		}
		if !cmd.HasAvailableLocalFlags() {
			continue
		}
		begin, end := "<!-- flags of "+name+" -->\n", "<!-- end -->"
		head, rest, found := strings.Cut(after, begin)
		_, tail, ended := strings.Cut(rest, end)
		if !found || !ended {
			t.Fatalf("%s has no place for the flags of %s: write %s%s", commandsPage, name, begin, end)
		}
		after = head + begin + flagTable(cmd) + end + tail
	}
	switch {
	case after == before:
	case *update:
		if err := os.WriteFile(commandsPage, []byte(after), 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("%s has not the flags of the program: run make docs", commandsPage)
	}
}
