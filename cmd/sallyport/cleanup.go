package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/flows/conntrack"
	"github.com/sallyport/sallyport/gateway/lastview"
	"github.com/sallyport/sallyport/gateway/node/gate"
	"github.com/sallyport/sallyport/netfilter/iptables"
	"github.com/sallyport/sallyport/netfilter/nft"
	"github.com/sallyport/sallyport/tunnel"
	"github.com/sallyport/sallyport/tunnel/vxlan"
	"github.com/sallyport/sallyport/vip/layer2"
)

func cleanupCommand() *cobra.Command {
	var stateDir string
	var stay bool
	var first firstPackets
	cmd := &cobra.Command{
		Use:   "cleanup",
		Short: "Remove everything of Sallyport's from this host, whatever version made it",
		Long: `Removes rules (nftables, and iptables in both variants), sets, routes, ip rules, the
tunnel device, VIPs and saved views from this host, and ends the connections that had a VIP.
Stop the agent and the gateway first: they would put them back. From then on selected pods
leave as all others do.`,
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
			installed, err := first.config()
			if err != nil {
				return err
			}
			// No pod is to wait for rules that nobody makes any more.
			step("CNI plugin", gate.Remove(installed.ConfDir, installed.BinDir, installed.RunDir))
			// The VIPs first: a fence taken away while they are here would let them answer.
			step("VIPs and fence", cleanVIPs())
			// Without a tunnel the packets that were to go through it are dropped, by rules that go
			// last: without them they would leave with their pods' own addresses, as long as
			// tracking knew their connections to be translated elsewhere.
			marked, err := vxlan.Rules()
			step("ip rules, routes and tunnel", errors.Join(err, vxlan.Cleanup(ctx, log)))
			step("tracked connections", forget(marked))
			step("nftables rules", cleanNFT(ctx, log))
			step("iptables rules and ipsets", iptables.Cleanup(ctx))
			step("saved views", lastview.Clear(stateDir))
			if err := errors.Join(errs...); err != nil || !stay {
				return err
			}
			<-ctx.Done()
			return nil
		},
	}
	cmd.Flags().StringVar(&stateDir, "state-dir", "/var/lib/sallyport", "folder that gateway and agent have saved views in")
	first.register(cmd.Flags())
	cmd.Flags().BoolVar(&stay, "stay", false, "stay after success until SIGTERM, as the pod of a DaemonSet has to")
	return cmd
}

func cleanVIPs() error {
	h, err := layer2.Open()
	if err != nil {
		return err
	}
	return errors.Join(h.Cleanup(nil), h.Close())
}

// forget ends the connections whose packets had the mark of one of the rules.
func forget(marked []tunnel.Rule) error {
	if len(marked) == 0 {
		return nil
	}
	_, err := conntrack.Forget(conntrack.IPv4, conntrack.Mark{}, func(e *conntrack.Entry) bool {
		return slices.ContainsFunc(marked, func(r tunnel.Rule) bool { return r.Value != 0 && e.Mark&r.Mask == r.Value })
	})
	return err
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
