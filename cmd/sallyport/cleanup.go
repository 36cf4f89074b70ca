package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/netfilter/iptables"
	"github.com/sallyport/sallyport/netfilter/nft"
	"github.com/sallyport/sallyport/tunnel/vxlan"
	"github.com/sallyport/sallyport/vip/layer2"
)

func cleanupCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "cleanup",
		Short: "Remove everything of Sallyport's from this host, whatever version made it",
		Long: `Removes rules (nftables, and iptables in both variants), sets, routes, ip rules, the
tunnel device and VIPs from this host. Stop the agent and the gateway first: they
would put them back. From then on selected pods leave as all others do.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := logger(cmd)
			if err != nil {
				return err
			}
			ctx := cmd.Context()
			var errs []error
			step := func(what string, err error) {
				if err != nil {
					errs = append(errs, fmt.Errorf("remove %s: %w", what, err))
					return
				}
				fmt.Fprintln(cmd.OutOrStdout(), "removed", what)
			}
			// The VIPs first: a fence taken away while they are here would let them answer.
			step("VIPs and fence", cleanVIPs())
			step("nftables rules", cleanNFT(ctx, log))
			step("iptables rules and ipsets", iptables.Cleanup(ctx))
			step("ip rules, routes and tunnel", vxlan.Cleanup(ctx, log))
			return errors.Join(errs...)
		},
	}
}

func cleanVIPs() error {
	h, err := layer2.Open()
	if err != nil {
		return err
	}
	return errors.Join(h.Cleanup(nil), h.Close())
}

func cleanNFT(ctx context.Context, log *slog.Logger) error {
	a, err := nft.New(log)
	if err != nil {
		// Nothing of ours can be there: it takes the same program to make it.
		log.Warn("nftables does not work here", "error", err)
		return nil
	}
	return a.Cleanup(ctx)
}
