package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sallyport/sallyport/gateway/kube"
	"github.com/sallyport/sallyport/gateway/survey"
)

// clusterAccess are the flags of asking the programs of a cluster.
type clusterAccess struct {
	kubeconfig, context string
	survey              survey.Config
}

// clusterStatus are those of status.
type clusterStatus struct {
	clusterAccess
	pods bool
}

func (c *clusterStatus) register(f *pflag.FlagSet) {
	c.clusterAccess.register(f)
	f.IntVar(&c.survey.AtOnce, "at-once", 16, "how many pods are asked at the same time")
	f.BoolVar(&c.pods, "pods", false, "list the steered pods of the cluster, too")
}

func (c *clusterAccess) register(f *pflag.FlagSet) {
	f.StringVar(&c.kubeconfig, "kubeconfig", "", "kubeconfig file of the cluster to ask; default: as kubectl finds it")
	f.StringVar(&c.context, "context", "", "context of the kubeconfig; default: its current one")
	f.StringVarP(&c.survey.Namespace, "namespace", "n", "", "namespace of the Helm release; default: all are looked through")
	f.StringVar(&c.survey.Selector, "selector", "app.kubernetes.io/name=sallyport", "labels of the installation's pods")
	f.DurationVar(&c.survey.Timeout, "timeout", 5*time.Second, "how long each pod has to answer")
}

// plugin says whether kubectl runs this program as `kubectl sallyport`.
func plugin() bool { return filepath.Base(os.Args[0]) == "kubectl-sallyport" }

// asked says whether one of the flags asks for a cluster.
func (c *clusterAccess) asked(f *pflag.FlagSet) bool {
	return slices.ContainsFunc([]string{"kubeconfig", "context", "namespace", "selector"}, f.Changed)
}

// connect prepares to ask the API server, and pods by way of it.
func (c *clusterAccess) connect(command string) (*kube.Client, *kube.Forwarder, error) {
	client, err := kube.Outside(c.kubeconfig, c.context, "sallyport-"+command+"/"+version(), slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, nil, err
	}
	forwarder, err := kube.NewForwarder(client.Config())
	return client, forwarder, err
}

func (c *clusterStatus) run(cmd *cobra.Command, output string) error {
	client, forwarder, err := c.connect("status")
	if err != nil {
		return err
	}
	o, err := survey.Take(cmd.Context(), c.survey, client, forwarder)
	if err != nil {
		return err
	}
	switch output {
	case "json":
		enc := json.NewEncoder(cmd.OutOrStdout())
		enc.SetIndent("", "  ")
		return enc.Encode(o)
	case "text":
		return printOverview(cmd.OutOrStdout(), o, c.pods, time.Now())
	}
	return fmt.Errorf("--output %s: choose text or json", output)
}

func printOverview(w io.Writer, o survey.Overview, pods bool, now time.Time) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "VIP\tHOLDER\tNODE\tSINCE\tTERM\tVOTERS\tNOTE")
	for _, v := range o.VIPs {
		since := "-"
		if !v.Since.IsZero() {
			since = now.Sub(v.Since).Round(time.Second).String()
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d\t%d of %d: %s\t%s\n", v.VIP, cmp.Or(v.Holder, "nobody"), cmp.Or(v.Node, "-"), since, v.Term,
			len(v.Voters), v.Replicas, strings.Join(v.Voters, " "), v.Note)
	}
	fmt.Fprintln(t, "\nROUTE\tVIP\tHOLDER\tPODS\tREADY\tNOTE")
	for _, r := range o.Routes {
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%s\t%s\n", r.Name, r.VIP, cmp.Or(r.Holder, "-"), r.Pods, r.Ready, r.Message)
	}
	if pods {
		fmt.Fprintln(t, "\nPOD\tADDRESS\tNODE\tROUTES")
		for _, p := range o.Pods {
			fmt.Fprintf(t, "%s/%s\t%s\t%s\t%s\n", p.Namespace, p.Name, p.Addr, p.Node, strings.Join(p.Routes, ","))
		}
	}
	fmt.Fprintln(t, "\nDROPPED\tPACKETS")
	for _, reason := range slices.Sorted(maps.Keys(o.Dropped)) {
		fmt.Fprintf(t, "%s\t%d\n", reason, o.Dropped[reason])
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	unready := append(printReady(w, "gateways", o.Gateways), printReady(w, "agents", o.Agents)...)
	for _, m := range unready {
		fmt.Fprintf(w, "  %s %s/%s on %s: %s\n", m.Program, m.Namespace, m.Pod, cmp.Or(m.Node, "no node"), m.Problem)
	}
	printProblems(w, o.Problems)
	return nil
}

// printReady counts, and returns those that there is something to say about.
func printReady(w io.Writer, what string, members []survey.Member) (notable []survey.Member) {
	ready := 0
	for _, m := range members {
		if m.Ready {
			ready++
		}
		if m.Problem != "" {
			notable = append(notable, m)
		}
	}
	fmt.Fprintf(w, "%d of %d %s ready\n", ready, len(members), what)
	return notable
}
