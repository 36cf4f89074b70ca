package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/gateway/kube"
	"github.com/sallyport/sallyport/gateway/survey"
	"github.com/sallyport/sallyport/trace"
	"github.com/sallyport/sallyport/trace/netns"
)

func traceCommand() *cobra.Command {
	var t tracing
	cmd := &cobra.Command{
		Use:   "trace POD[.NAMESPACE] ADDRESS:PORT[/udp]",
		Short: "Walk the path of a pod's packets and name the first thing that is wrong, with its cure",
		Long: `Asks the agent of the pod's node and all gateways what their kernels make of a packet
of the pod to the destination: which route takes it, whether sets, rules, mark, table
and tunnel are as they should be, who holds the VIP, whether the gateway admits and
translates it, and how the reply comes back. Nothing is changed.

On a host it asks the programs at --http. With --kubeconfig, --context or --namespace, and
as kubectl sallyport trace, it asks those of a cluster, from outside, by way of the API
server. That takes the rights to get the pod, to list Sallyport's pods and to get and create
pods/portforward.

--probe also makes a real connection from the pod's network namespace and says as which
address the outside saw it: the destination if it is a sallyport reflect, or the server at
--echo-url. On a cluster that is a container that is added to the pod (an ephemeral
container, with the image of the agents): it takes the right to patch
pods/ephemeralcontainers there, and the container stays in the pod's status. Neither agents
nor gateways are allowed into pods. On a host give the pod's namespace with --netns and be root.

Exit status 0 when all is well, 1 when something is wrong, 2 when not all could be asked.`,
		Example: `  kubectl sallyport trace bank-0.shop 203.0.113.9:443 --probe
  sallyport trace bank-0.shop 203.0.113.9:443 --http 192.0.2.1:9872,192.0.2.1:9871`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := t.run(cmd, args[0], args[1])
			if err != nil {
				return unasked{err}
			}
			switch t.output {
			case "json":
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				err = enc.Encode(r)
			default:
				printTrace(cmd.OutOrStdout(), r)
			}
			switch {
			case err != nil:
				return unasked{err}
			case r.First > 0:
				return errSilent
			case !r.Asked:
				return unasked{errSilent}
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&t.http, "http", []string{"127.0.0.1:9872", "127.0.0.1:9871"}, "HTTP endpoints of the agents and gateways to ask, separated by commas")
	f.StringVarP(&t.output, "output", "o", "text", "text or json")
	f.BoolVar(&t.probe, "probe", false, "make a connection from the pod, and say as which address the outside saw it")
	f.StringVar(&t.echoURL, "echo-url", "", "URL of a server that answers with its client's address, for --probe")
	f.StringVar(&t.netns, "netns", "", "name or path of the pod's network namespace on this host, for --probe without Kubernetes")
	f.StringVar(&t.image, "probe-image", "", "image of the container that --probe adds to the pod; default: that of the installation")
	t.cluster.register(f)
	return cmd
}

// tracing are the flags of trace.
type tracing struct {
	cluster clusterAccess
	http    []string
	output  string

	probe                 bool
	echoURL, netns, image string
}

func (t *tracing) run(cmd *cobra.Command, pod, to string) (trace.Report, error) {
	q, err := trace.PodName(pod, "default")
	if err != nil {
		return trace.Report{}, err
	}
	if q.Packet, err = trace.Destination(to); err != nil {
		return trace.Report{}, err
	}
	outside := t.cluster.asked(cmd.Flags()) || plugin() && !cmd.Flags().Changed("http")
	switch {
	case t.output != "text" && t.output != "json":
		return trace.Report{}, fmt.Errorf("--output %s: choose text or json", t.output)
	case t.probe && !outside && t.netns == "":
		return trace.Report{}, errors.New("--probe: give the pod's network namespace on this host with --netns, or ask a cluster with --kubeconfig")
	}
	ctx := cmd.Context()
	if !outside {
		var made *trace.Probe
		if t.probe { // before looking, so that its connection is seen
			p, err := t.here(ctx, q)
			if err != nil {
				return trace.Report{}, err
			}
			made = &p
		}
		facts := survey.TraceAt(ctx, t.http, t.cluster.survey.Timeout, q)
		facts.Probe = made
		return trace.Walk(facts), nil
	}
	client, forwarder, err := t.cluster.connect("trace")
	if err != nil {
		return trace.Report{}, err
	}
	var made *trace.Probe
	if t.probe {
		p, err := t.inside(ctx, client, q)
		if err != nil {
			return trace.Report{}, err
		}
		made = &p
	}
	facts, err := survey.Trace(ctx, t.cluster.survey, client, forwarder, q)
	facts.Probe = made
	return trace.Walk(facts), err
}

// here probes from a network namespace of this host.
func (t *tracing) here(ctx context.Context, q trace.Question) (p trace.Probe, err error) {
	self, err := os.Executable()
	if err != nil {
		return p, fmt.Errorf("--probe: find this program's file: %w", err)
	}
	said, err := netns.Output(exec.CommandContext(ctx, self, t.probeArgs(q)...), t.netns)
	if err != nil && len(said) == 0 {
		return p, fmt.Errorf("--netns: %w", err)
	}
	return p, json.Unmarshal(said, &p)
}

func (t *tracing) probeArgs(q trace.Question) []string {
	args := []string{"probe", fmt.Sprintf("%s:%d/%s", q.Packet.Dst, q.Packet.Port, q.Packet.Protocol)}
	if t.echoURL != "" {
		args = append(args, "--echo-url", t.echoURL)
	}
	return args
}

// inside probes from a container beside the pod's own; no Probe where there is no pod.
func (t *tracing) inside(ctx context.Context, client *kube.Client, q trace.Question) (p trace.Probe, err error) {
	image := t.image
	if image == "" {
		if image, err = survey.Image(ctx, t.cluster.survey, client); err != nil {
			return p, err
		}
	}
	said, err := client.RunBeside(ctx, q.Namespace, q.Pod, image, append(t.probeArgs(q), "--report", kube.ReportFile))
	if err != nil {
		return p, fmt.Errorf("--probe: %w", err)
	}
	if err := json.Unmarshal([]byte(said), &p); err != nil {
		return p, fmt.Errorf("--probe: the container said %.200q: give the installation's own image with --probe-image", said)
	}
	return p, nil
}

func printTrace(w io.Writer, r trace.Report) {
	fmt.Fprintf(w, "Pod %s to %s\n\n", r.Pod, r.Destination)
	for i, s := range r.Steps {
		verdict := string(s.Verdict)
		if s.Verdict == trace.Wrong {
			verdict = "WRONG"
		}
		fmt.Fprintf(w, "%3d  %-7s %-16s %-9s %s\n", i+1, verdict, s.Name, cmp.Or(s.Where, "-"), s.Found)
		if s.Verdict != trace.OK {
			for _, line := range [][2]string{{"expected", s.Expected}, {"cure", s.Cure}} {
				if line[1] != "" {
					fmt.Fprintf(w, "%40s%s: %s\n", "", line[0], line[1])
				}
			}
		}
	}
	fmt.Fprintln(w)
	switch {
	case r.First > 0:
		s := r.Steps[r.First-1]
		fmt.Fprintf(w, "The first thing wrong is step %d, %s: %s\nCure: %s\n", r.First, s.Name, s.Found, s.Cure)
	case !r.Asked:
		fmt.Fprintln(w, "Nothing is wrong as far as could be asked.")
	default:
		fmt.Fprintln(w, "Nothing is wrong.")
	}
}
