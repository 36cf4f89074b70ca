// Command lab keeps a network of namespaces up to play with: nodes, pods, a router
// and a partner, gateways and agents on the nodes, and faults to try on them.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/e2e/lab"
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	if err := newCommand().ExecuteContext(ctx); err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return exit.ExitCode()
		}
		fmt.Fprintln(os.Stderr, "lab:", err)
		return 1
	}
	return 0
}

func newCommand() *cobra.Command {
	root := &cobra.Command{
		Use: "lab", Short: "A network of namespaces to play with, and to break",
		SilenceUsage: true, SilenceErrors: true,
	}
	prefix := root.PersistentFlags().String("prefix", cmp.Or(os.Getenv("LAB_PREFIX"), "spl"), "first part of the names of all its namespaces; also by LAB_PREFIX")
	root.AddCommand(upCommand(prefix), downCommand(prefix), statusCommand(prefix), askCommand(prefix), execCommand(prefix))
	root.AddCommand(programCommands(prefix)...)
	root.AddCommand(faultCommands(prefix)...)
	return root
}

func downCommand(prefix *string) *cobra.Command {
	return &cobra.Command{
		Use: "down", Short: "Remove the lab, whatever state it is in", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return lab.Down(*prefix) },
	}
}

func execCommand(prefix *string) *cobra.Command {
	c := &cobra.Command{
		Use: "exec HOST COMMAND [ARG...]", Short: "Run a command on a host: n1, pod-1-1, router, partner, sw",
		Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return attached(*prefix, func(l *lab.Lab) error {
				ns, err := l.Namespace(args[0])
				if err != nil {
					return err
				}
				c := ns.Command(args[1], args[2:]...)
				c.Stdin, c.Stdout, c.Stderr = cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr()
				return c.Run()
			})
		},
	}
	c.Flags().SetInterspersed(false) // flags behind the host are the command's
	return c
}

func upCommand(prefix *string) *cobra.Command {
	var o lab.Options
	var byHand, bare bool
	c := &cobra.Command{
		Use: "up", Short: "Build a lab and keep it until Ctrl-C", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			o.Prefix = *prefix
			if err := lab.Equipped(); err != nil {
				return err
			}
			if !bare && !byHand {
				if o.Binary, err = lab.FindBinary(o.Binary); err != nil {
					return err
				}
			}
			l, err := lab.Up(o)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, l.Close()) }()
			if err := settle(l, byHand, bare); err != nil {
				return err
			}
			explain(cmd.OutOrStdout(), l, !bare && !byHand)
			<-cmd.Context().Done()
			fmt.Fprintln(cmd.OutOrStdout(), "\nremoving the lab")
			return nil
		},
	}
	f := c.Flags()
	f.IntVar(&o.Nodes, "nodes", 3, "nodes, 1 to 9")
	f.IntSliceVar(&o.GatewayNodes, "gateways", nil, "nodes that run a gateway (default all)")
	f.IntVar(&o.PodsPerNode, "pods", 2, "pods on each node")
	f.BoolVar(&o.TwoNetworks, "two-networks", false, "gossip and tunnel on a second network of the nodes")
	f.StringVar(&o.Binary, "binary", "", "the sallyport program (default the one beside this)")
	f.StringVar(&o.Netfilter, "netfilter", "", "handed to the programs: auto, nftables or iptables")
	f.StringVar((*string)(&o.Masquerade), "masquerade", "", "the CNI's masquerade: nft, iptables-nft, iptables-legacy or none")
	f.BoolVar(&byHand, "by-hand", false, "the packet path configured by hand on n1, without programs")
	f.BoolVar(&bare, "bare", false, "the network only: no programs, no route")
	return c
}

// settle makes one route, opts in the first pod of each node, and starts what was
// asked for.
func settle(l *lab.Lab, byHand, bare bool) error {
	if bare {
		return nil
	}
	selected := map[int]string{}
	for _, p := range l.Pods() {
		if _, one := selected[p.Node]; !one {
			selected[p.Node] = p.Name
		}
	}
	if byHand {
		var pods []string
		for _, p := range selected {
			pods = append(pods, p)
		}
		_, err := l.MakeByHand(1, pods...)
		return err
	}
	if err := l.Manifests.WriteRoute("payments", fmt.Sprintf(
		"vip: %s\nnamespaceSelector: {}\ndestinations:\n- cidr: %s/32\n", l.Options.VIPs[0], lab.PartnerAddr)); err != nil {
		return err
	}
	for _, p := range selected {
		if err := l.Annotate(p, "payments"); err != nil {
			return err
		}
	}
	return l.StartAll()
}

func explain(w io.Writer, l *lab.Lab, programs bool) {
	fmt.Fprintf(w, "lab %s is up: %d nodes, VIP %s, files in %s\n\n", l.Options.Prefix, l.Options.Nodes, l.Options.VIPs[0], l.Options.Dir)
	for _, p := range l.Pods() {
		routes := p.Annotations[lab.RoutesAnnotation]
		if routes != "" {
			routes = "  selected by route " + routes
		}
		fmt.Fprintf(w, "  %-10s %-13s on n%d%s\n", p.Name, p.Addr, p.Node, routes)
	}
	fmt.Fprintf(w, "\nThe partner's %s admits only the VIP, its %s everyone. In another terminal, as root:\n\n%s\nCtrl-C removes everything.\n",
		lab.PartnerAddr, lab.PublicAddr, l.Suggest(programs))
}

// attached does something with the lab that another process keeps up.
func attached(prefix string, f func(*lab.Lab) error) (err error) {
	l, err := lab.Attach(prefix)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	return f(l)
}
