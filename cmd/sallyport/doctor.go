package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/doctor"
	"github.com/sallyport/sallyport/gateway/survey"
)

func doctorCommand() *cobra.Command {
	var access clusterAccess
	var addrs []string
	var output string
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Examine every node and gateway, and name what is wrong or may become so, with its cure",
		Long: `Asks agents and gateways what their hosts show: whether the view is in the kernel, their
problems (settings, rp_filter, marks, ports and tables that others use, other owners of a
VIP), who holds each VIP, versions, clocks, scheduling, replication, the size of packets that
come through to the VIPs and back (by pinging them), ARP settings, kube-proxy's addresses,
masquerades that come before ours, and the room of connection tracking. docs/troubleshooting.md has
an entry for each check.

On a host it asks the programs at --http. With --kubeconfig, --context or --namespace, and
as kubectl sallyport doctor, it asks those of a cluster, which takes the rights to list
Sallyport's pods and to get and create pods/portforward.

Exit status 0 without an error among the findings, 1 with one, 2 when not all could be asked.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "text" && output != "json" {
				return unasked{fmt.Errorf("--output %s: choose text or json", output)}
			}
			var r doctor.Report
			if access.asked(cmd.Flags()) || plugin() && !cmd.Flags().Changed("http") {
				client, forwarder, err := access.connect("doctor")
				if err == nil {
					r, err = survey.Doctor(cmd.Context(), access.survey, client, forwarder)
				}
				if err != nil {
					return unasked{err}
				}
			} else {
				r = survey.DoctorAt(cmd.Context(), addrs, access.survey)
			}
			if output == "json" {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				if err := enc.Encode(r); err != nil {
					return unasked{err}
				}
			} else {
				printDoctor(cmd.OutOrStdout(), r)
			}
			switch {
			case r.Errors():
				return errSilent
			case len(r.Silent) > 0 || r.Hosts == 0:
				return unasked{errSilent}
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&addrs, "http", []string{"127.0.0.1:9872", "127.0.0.1:9871"}, "HTTP endpoints of the agents and gateways to ask, separated by commas")
	f.StringVarP(&output, "output", "o", "text", "text or json")
	access.register(f)
	f.IntVar(&access.survey.AtOnce, "at-once", 16, "how many programs are asked at the same time")
	timeout := f.Lookup("timeout") // pinging takes its time
	access.survey.Timeout = 30 * time.Second
	timeout.DefValue, timeout.Usage = "30s", "how long each program has to answer"
	return cmd
}

func printDoctor(w io.Writer, r doctor.Report) {
	for _, f := range r.Findings {
		fmt.Fprintf(w, "%-7s  %-11s  %-8s %s: %s\n", strings.ToUpper(string(f.Severity)), f.Check, cmp.Or(f.Where, "-"), f.Object, f.Found)
		if f.Cure != "" {
			fmt.Fprintf(w, "%32scure: %s\n", "", f.Cure)
		}
		fmt.Fprintf(w, "%32smore: %s\n", "", f.Entry())
	}
	for _, s := range r.Silent {
		fmt.Fprintf(w, "SILENT   %s on %s: %s\n", s.Program, cmp.Or(s.Where, "no node"), s.Why)
	}
	fmt.Fprintf(w, "%d findings; %d programs answered, %d did not\n", len(r.Findings), r.Hosts, len(r.Silent))
}
