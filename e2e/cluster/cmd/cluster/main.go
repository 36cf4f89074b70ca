// Cluster builds and runs the Kubernetes cluster of the tests, to play with.
package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/e2e/cluster"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	err := command().ExecuteContext(ctx)
	stop()
	if err != nil {
		os.Exit(1)
	}
}

func command() *cobra.Command {
	var prefix string
	c := &cobra.Command{Use: "cluster", Short: "A real Kubernetes cluster on this machine, for tests", SilenceUsage: true, TraverseChildren: true}
	c.Flags().StringVar(&prefix, "prefix", "spk", "prefix of the cluster's namespaces")
	c.AddCommand(bin(), up(&prefix), tool(&prefix, "kubectl"), tool(&prefix, "helm"), in(&prefix))
	return c
}

func bin() *cobra.Command {
	return &cobra.Command{Use: "bin", Short: "Print the folder of the Kubernetes programs, built if need be", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			dir, err := cluster.Programs(c.Context(), os.Stderr)
			if err == nil {
				fmt.Println(dir)
			}
			return err
		}}
}

func up(prefix *string) *cobra.Command {
	var o cluster.Options
	var binary string
	c := &cobra.Command{Use: "up", Short: "Start a cluster with our image on its nodes, until Ctrl-C", Args: cobra.NoArgs}
	c.Flags().IntVar(&o.Nodes, "nodes", 3, "number of nodes")
	c.Flags().StringVar(&o.ProxyMode, "proxy-mode", "iptables", "kube-proxy's: iptables or nftables")
	c.Flags().StringVar(&binary, "binary", os.Getenv("SALLYPORT_BIN"), "the sallyport program in the image; built where it is not given")
	c.RunE = func(c *cobra.Command, _ []string) error {
		dir, err := os.MkdirTemp("", "sallyport-image-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		image, err := cluster.SallyportImage(c.Context(), dir, binary, os.Stderr)
		if err != nil {
			return err
		}
		o.Prefix, o.Images, o.Progress = *prefix, []string{image}, os.Stderr
		k, err := cluster.Up(c.Context(), o)
		if err != nil {
			return err
		}
		fmt.Printf(usage, *prefix, cluster.Repository, cluster.Tag)
		<-c.Context().Done()
		return k.Close()
	}
	return c
}

const usage = `The cluster is up until Ctrl-C. In another terminal, from the repository:
  go run ./e2e/cluster/cmd/cluster --prefix %[1]s kubectl get nodes -o wide
  go run ./e2e/cluster/cmd/cluster --prefix %[1]s helm install sallyport charts/sallyport --wait \
    --set gateway.vips={192.0.2.10} --set image.repository=%[2]s --set image.tag=%[3]s
  go run ./e2e/cluster/cmd/cluster --prefix %[1]s in 1 nft list ruleset
The partner is 203.0.113.5 (only the VIP gets in) and 203.0.113.9 (everybody does), TCP port 8443.
`

func tool(prefix *string, name string) *cobra.Command {
	return &cobra.Command{Use: name + " ARG...", Short: "Run " + name + " on a running cluster", DisableFlagParsing: true,
		RunE: func(c *cobra.Command, args []string) error {
			programs, err := cluster.Programs(c.Context(), os.Stderr)
			if err != nil {
				return err
			}
			a, err := cluster.Attach(*prefix, programs)
			if err != nil {
				return err
			}
			return run(a.Tool(name, args...))
		}}
}

func in(prefix *string) *cobra.Command {
	return &cobra.Command{Use: "in NODE COMMAND...", Short: "Run a command inside of a node, given by its number", Args: cobra.MinimumNArgs(2),
		DisableFlagParsing: true,
		RunE: func(_ *cobra.Command, args []string) error {
			j, err := strconv.Atoi(args[0])
			if err != nil {
				return fmt.Errorf("node %q: give its number", args[0])
			}
			a, err := cluster.Attach(*prefix, "")
			if err != nil {
				return err
			}
			cmd, err := a.In(j, args[1], args[2:]...)
			if err != nil {
				return err
			}
			return run(cmd)
		}}
}

func run(cmd *exec.Cmd) error {
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd.Run()
}
