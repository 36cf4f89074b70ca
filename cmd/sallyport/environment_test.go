package main

import (
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// values that a flag takes, by its type, other than any default.
var values = map[string]string{
	"string": "something", "stringArray": "something", "stringSlice": "something", "bool": "true", "duration": "1h2m3s",
	"int": "4321", "uint16": "4321", "uint32": "4321",
}

// TestEveryFlagComesFromTheEnvironment, as the root's help promises for all commands: each
// runs with every variable set, and finds them in its flags.
func TestEveryFlagComesFromTheEnvironment(t *testing.T) {
	var paths [][]string
	var walk func(c *cobra.Command, path []string)
	walk = func(c *cobra.Command, path []string) {
		if c.RunE != nil || c.Run != nil {
			paths = append(paths, path)
		}
		for _, sub := range c.Commands() {
			walk(sub, append(path[:len(path):len(path)], sub.Name()))
		}
	}
	walk(rootCommand(), nil)
	if len(paths) < 15 {
		t.Fatalf("only %d commands: %v", len(paths), paths)
	}
	for _, path := range paths {
		root := rootCommand()
		cmd, _, err := root.Find(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(cmd.CommandPath(), func(t *testing.T) {
			want := map[string]string{}
			flags := func(visit func(*pflag.Flag)) {
				cmd.InheritedFlags() // brings the root's among the command's
				cmd.Flags().VisitAll(func(f *pflag.Flag) {
					if f.Name != "help" {
						visit(f)
					}
				})
			}
			flags(func(f *pflag.Flag) {
				value, ok := values[f.Value.Type()]
				if !ok {
					t.Fatalf("--%s is of type %s: give a value of it", f.Name, f.Value.Type())
				}
				if f.DefValue == "true" {
					value = "false"
				}
				t.Setenv(environment(f), value)
				want[f.Name] = value
			})
			ran := false
			cmd.Args, cmd.Run = cobra.ArbitraryArgs, nil
			cmd.RunE = func(*cobra.Command, []string) error {
				ran = true
				flags(func(f *pflag.Flag) {
					if got := f.Value.String(); got != want[f.Name] && got != "["+want[f.Name]+"]" {
						t.Errorf("%s=%s: --%s is %s", environment(f), want[f.Name], f.Name, got)
					}
				})
				return nil
			}
			root.SetArgs(path)
			if err := root.Execute(); err != nil || !ran {
				t.Fatalf("the command did not run: %v", err)
			}
		})
	}
}
