// Sallyport is an egress gateway with a floating VIP for Kubernetes: selected pods
// reach chosen partners from one stable source address.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
)

func main() { os.Exit(run()) }

// errSilent ends the program with status 1 when everything has been said already.
var errSilent = errors.New("problems were found")

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	if err := rootCommand().ExecuteContext(ctx); err != nil {
		if !errors.Is(err, errSilent) {
			fmt.Fprintln(os.Stderr, "sallyport:", err)
		}
		return exitStatus(err)
	}
	return 0
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "sallyport",
		Short: "Egress gateway with a floating VIP: selected pods reach partners from one stable address",
		Long: `Sallyport gives selected pods one stable source address towards chosen partners
and keeps it through the death of any gateway.

Every flag can also be set from the environment: --node-name is SALLYPORT_NODE_NAME.`,
		SilenceUsage: true, SilenceErrors: true,
	}
	root.PersistentFlags().String("log-level", "info", "least level logged: debug, info, warn or error")
	root.AddCommand(gatewayCommand(), agentCommand(), statusCommand(), dashboardCommand(), handoverCommand(), traceCommand(), doctorCommand(), probeCommand(), reflectCommand(), checkCommand(), cleanupCommand(), uninstallCommand(), versionCommand())
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		for _, warning := range misspelt(cmd, os.Environ()) {
			cmd.PrintErrln("sallyport:", warning)
		}
		return fromEnvironment(cmd)
	}
	help := root.HelpFunc()
	root.SetHelpFunc(func(cmd *cobra.Command, args []string) {
		cmd.InheritedFlags() // brings the root's among the command's
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if f.Name != "help" {
				f.Usage += " [" + environment(f) + "]"
			}
		})
		help(cmd, args)
	})
	root.AddCommand(allowlistCommand())
	root.AddCommand(auditCommand())
	return root
}
