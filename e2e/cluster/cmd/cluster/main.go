// Cluster builds and runs the Kubernetes cluster of the tests, to play with.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/e2e/cluster"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil {
		os.Exit(1)
	}
}

func command() *cobra.Command {
	c := &cobra.Command{Use: "cluster", Short: "A real Kubernetes cluster on this machine, for tests", SilenceUsage: true}
	c.AddCommand(
		&cobra.Command{Use: "bin", Short: "Print the folder of the Kubernetes programs, built if need be", Args: cobra.NoArgs,
			RunE: func(c *cobra.Command, _ []string) error {
				dir, err := cluster.Programs(c.Context(), os.Stderr)
				if err == nil {
					fmt.Println(dir)
				}
				return err
			}},
	)
	return c
}
