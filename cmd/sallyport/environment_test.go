package main

import (
	"bytes"
	"slices"
	"strings"
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

func TestHelpNamesTheVariableOfEachFlag(t *testing.T) {
	var out bytes.Buffer
	root := rootCommand()
	root.SetOut(&out)
	root.SetArgs([]string{"gateway", "--help"})
	if err := root.Execute(); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"--node-name", "--log-level"} {
		i := slices.IndexFunc(strings.Split(out.String(), "\n"), func(l string) bool {
			return strings.Contains(l, line+" ") && strings.Contains(l, "[SALLYPORT_"+strings.ToUpper(strings.ReplaceAll(line[2:], "-", "_"))+"]")
		})
		if i < 0 {
			t.Errorf("the help of %s does not name its variable:\n%s", line, out.String())
		}
	}
}

func TestMisspeltVariablesAreNamed(t *testing.T) {
	cmd, _, err := rootCommand().Find([]string{"agent"})
	if err != nil {
		t.Fatal(err)
	}
	got := misspelt(cmd, []string{
		"SALLYPORT_NODENAME=n1", "SALLYPORT_TUNEL_PORT=4793", "SALLYPORT_REPLICA=3",
		// Set, of another command, of Kubernetes, of others.
		"SALLYPORT_NODE_NAME=n1", "SALLYPORT_REPLICAS=3", "SALLYPORT_SERVICE_HOST=10.0.0.1", "SALLYPORT_GATEWAY_SERVICE_PORT_HTTP=80", "SALLYPORT_PORT=tcp://10.0.0.1:80",
		"SALLYPORT_PORT_80_TCP_ADDR=10.0.0.1", "SALLYPORT_GOSIP_PORT=udp://10.0.0.1:80", "SALLYPORT_BIN=bin", "SALLYPORT_CLUSTER_BIN=bin", "HOME=/root", "NODE_NAM=n1",
	})
	want := []string{
		"SALLYPORT_NODENAME is not read by anything: SALLYPORT_NODE_NAME is", "SALLYPORT_TUNEL_PORT is not read by anything: SALLYPORT_TUNNEL_PORT is",
		"SALLYPORT_REPLICA is not read by anything: SALLYPORT_REPLICAS is",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
