package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/election/priority"
)

func TestFlagsFromTheEnvironment(t *testing.T) {
	for _, c := range []struct {
		name, env, value string
		args             []string
		flag             string
		want             []string // nil: an error
	}{
		{"several VIPs", "SALLYPORT_VIP", "192.0.2.10@eth0,via=10.0.0.10@eth1 192.0.2.11", nil, "vip", []string{"192.0.2.10@eth0,via=10.0.0.10@eth1", "192.0.2.11"}},
		{"a list", "SALLYPORT_JOIN", "192.0.2.1,192.0.2.2", nil, "join", []string{"192.0.2.1", "192.0.2.2"}},
		{"the command line wins", "SALLYPORT_JOIN", "192.0.2.1", []string{"--join", "192.0.2.9"}, "join", []string{"192.0.2.9"}},
		{"no number", "SALLYPORT_REPLICAS", "three", nil, "replicas", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv(c.env, c.value)
			cmd := gatewayCommand()
			var got []string
			cmd.RunE = func(cmd *cobra.Command, _ []string) error {
				if err := fromEnvironment(cmd); err != nil {
					return err
				}
				var err error
				if c.flag == "vip" {
					got, err = cmd.Flags().GetStringArray(c.flag)
				} else {
					got, err = cmd.Flags().GetStringSlice(c.flag)
				}
				return err
			}
			cmd.SetArgs(append([]string{}, c.args...)) // nil would be those of the tests
			cmd.SilenceErrors, cmd.SilenceUsage = true, true
			err := cmd.Execute()
			if c.want == nil {
				if err == nil || !strings.Contains(err.Error(), c.env) || !strings.Contains(err.Error(), c.value) {
					t.Errorf("error %v, want one that names %s and %q", err, c.env, c.value)
				}
				return
			}
			if err != nil || !slices.Equal(got, c.want) {
				t.Errorf("got %q, %v; want %q", got, err, c.want)
			}
		})
	}
}

func TestPriorityOfATiming(t *testing.T) {
	for _, c := range []struct {
		flag, timing string
		want         priority.Way
	}{
		{"auto", "default", priority.Nice}, {"auto", "fast", priority.RealTime}, {"auto", "wan", priority.Nice},
		{"nice", "fast", priority.Nice}, {"realtime", "wan", priority.RealTime}, {"high", "default", ""},
	} {
		got, err := urgencyOf(c.flag, c.timing)
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("--priority %s with --timing %s is %q, %v; want %q", c.flag, c.timing, got, err, c.want)
		}
	}
}
