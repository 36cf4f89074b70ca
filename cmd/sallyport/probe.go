package main

import (
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/trace"
	"github.com/sallyport/sallyport/trace/probe"
)

// probeTimeout leaves room for two tries of TCP.
const probeTimeout = 5 * time.Second

func probeCommand() *cobra.Command {
	var report, echoURL string
	cmd := &cobra.Command{
		Use:   "probe ADDRESS:PORT[/udp]",
		Short: "Connect from here and print, as JSON, as which address the outside saw it",
		Long: `What sallyport trace --probe runs beside a pod. The destination is a sallyport reflect;
or --echo-url is asked instead. Exit status 1 when there was no connection.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			to, err := trace.Destination(args[0])
			if err != nil {
				return err
			}
			p := probe.Run(cmd.Context(), probe.Config{To: to, EchoURL: echoURL, Timeout: probeTimeout})
			text, err := json.Marshal(p)
			if err != nil {
				return fmt.Errorf("encode the answer: %w", err)
			}
			fmt.Fprintln(cmd.OutOrStdout(), string(text))
			if report != "" {
				if err := os.WriteFile(report, text, 0o644); err != nil {
					return fmt.Errorf("--report: %w", err)
				}
			}
			if !p.Connected {
				return errSilent
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&echoURL, "echo-url", "", "URL of a server that answers with its client's address")
	cmd.Flags().StringVar(&report, "report", "", "file to write the answer to, too")
	return cmd
}
