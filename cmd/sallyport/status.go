package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/gateway/host"
)

func statusCommand() *cobra.Command {
	var addr, output string
	var cluster clusterStatus
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show who holds each VIP, the routes, the pods and the problems",
		Long: `Asks a gateway (or, with --http 127.0.0.1:9872, an agent) on this host and prints
what it sees. Exit status 1 when it does not answer.

With --kubeconfig, --context or --namespace, and as kubectl sallyport status (this program
named kubectl-sallyport), it asks all gateways and agents of a cluster, from outside, by way of
the API server. That takes the rights to list pods and egressroutes and to get and
create pods/portforward.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cluster.asked(cmd.Flags()) || plugin() && !cmd.Flags().Changed("http") {
				return cluster.run(cmd, output)
			}
			body, s, err := fetchStatus(cmd.Context(), addr)
			if err != nil {
				return err
			}
			switch output {
			case "json":
				_, err := cmd.OutOrStdout().Write(body)
				return err
			case "text":
				return printStatus(cmd.OutOrStdout(), s, time.Now())
			}
			return fmt.Errorf("--output %s: choose text or json", output)
		},
	}
	cmd.Flags().StringVar(&addr, "http", "127.0.0.1:9871", "address of the gateway's or agent's HTTP endpoint")
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	cluster.register(cmd.Flags())
	return cmd
}

func fetchStatus(ctx context.Context, addr string) ([]byte, host.Status, error) {
	var s host.Status
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/status", nil)
	if err != nil {
		return nil, s, fmt.Errorf("--http %s: %w", addr, err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, s, fmt.Errorf("ask %s for its status: %w (is a gateway running there? an agent listens on 127.0.0.1:9872)", addr, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, s, fmt.Errorf("read the status of %s: %w", addr, err)
	}
	if err := json.Unmarshal(body, &s); err != nil || s.Program == "" {
		return nil, s, fmt.Errorf("%s does not answer as Sallyport does: %.80q", addr, body)
	}
	return body, s, nil
}

func printStatus(w io.Writer, s host.Status, now time.Time) error {
	fmt.Fprintf(w, "%s on %s, version %s, netfilter %s", s.Program, s.Node, s.Version, s.Netfilter)
	if s.Priority != "" {
		fmt.Fprintf(w, ", timing %s, priority %s", s.Timing, s.Priority)
	}
	fmt.Fprintln(w)
	switch {
	case s.Live && !s.Apply.Done && s.Apply.Error == "":
		fmt.Fprintln(w, "The first view is on its way to the kernel.")
	case s.Live:
	case s.ViewAgeSeconds == nil:
		fmt.Fprintln(w, "The source has given no view yet, and none was saved: nothing is set up here until it does.")
	default:
		age := time.Duration(*s.ViewAgeSeconds * float64(time.Second)).Round(time.Second)
		fmt.Fprintf(w, "The source does not answer: the last good view is used, %v old.\n", age)
	}
	if s.Apply.Error != "" {
		fmt.Fprintln(w, "Not applied:", s.Apply.Error)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if s.Program == "gateway" {
		fmt.Fprintln(t, "\nVIP\tHOLDER\tSINCE\tTERM\tVOTERS\tLEASE\tNOTE")
		for _, v := range s.VIPs {
			since, lease := "-", "-"
			if !v.Since.IsZero() {
				since = now.Sub(v.Since).Round(time.Second).String()
			}
			if v.Held {
				lease = fmt.Sprintf("%.0f ms left", v.LeaseSeconds*1000)
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%d of %d: %s\t%s\t%s\n", v.VIP, cmp.Or(v.Holder, "nobody"), since, v.Term,
				len(v.Voters), v.Replicas, strings.Join(v.Voters, " "), lease, note(v))
		}
		printReplication(t, s.VIPs)
	}
	fmt.Fprintln(t, "\nROUTE\tVIP\tPODS\tPACKETS\tBYTES")
	for _, r := range s.Routes {
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%d\n", r.Name, r.VIP, r.Pods, r.Sent.Packets, r.Sent.Bytes)
	}
	fmt.Fprintln(t, "\nPOD\tADDRESS\tNODE\tROUTES")
	for _, p := range s.Pods {
		fmt.Fprintf(t, "%s/%s\t%s\t%s\t%s\n", p.Namespace, p.Name, p.Addr, p.Node, strings.Join(p.Routes, ","))
	}
	fmt.Fprintln(t, "\nDROPPED\tPACKETS")
	for _, reason := range slices.Sorted(maps.Keys(s.Dropped)) {
		fmt.Fprintf(t, "%s\t%d\n", reason, s.Dropped[reason].Packets)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	printProblems(w, s.Problems)
	return nil
}

// note is why the VIP is not held, as far as this replica can tell.
func note(v host.VIP) string {
	var why []string
	if v.Barred != "" {
		why = append(why, v.Barred)
	}
	if quorum := v.Replicas/2 + 1; v.Holder == "" && len(v.Voters) < quorum {
		why = append(why, fmt.Sprintf("%d of the %d gateways must hear each other: start the others, or see to --join and the network between", quorum, v.Replicas))
	}
	return strings.Join(why, "; ")
}

// printProblems is the end of every status.
func printProblems[P any](w io.Writer, problems []P) {
	if len(problems) == 0 {
		fmt.Fprintln(w, "No problems.")
		return
	}
	fmt.Fprintf(w, "%d problems:\n", len(problems))
	for _, p := range problems {
		fmt.Fprintf(w, "  %v\n", p)
	}
}
