package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/gateway/manifest"
)

func checkCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check FILE|DIR...",
		Short: "Validate manifests offline",
		Long: `Reads EgressRoutes, Pods, Namespaces and Nodes from files and folders and prints
each problem with its file and field, among them routes that overlap and
annotations that name no route. Exit status 1 when there is any.`,
		Example: `  sallyport check routes.yaml pods/`,
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			problems, err := manifest.Check(args)
			if err != nil {
				return err
			}
			for _, p := range problems {
				fmt.Fprintln(cmd.OutOrStdout(), p)
			}
			if len(problems) > 0 {
				return errSilent
			}
			fmt.Fprintln(cmd.OutOrStdout(), "no problems")
			return nil
		},
	}
}
