package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sallyport/sallyport/allowlist"
	"github.com/sallyport/sallyport/allowlist/keep"
	"github.com/sallyport/sallyport/allowlist/poll"
	"github.com/sallyport/sallyport/gateway/kube"
)

// listed are the flags of where a list comes from, and what of it is wanted.
type listed struct {
	urls                []string
	caFile              string
	routes              []string
	nodes               bool
	kubeconfig, context string
	addresses           []string
	within              []string
}

func (l *listed) register(f *pflag.FlagSet) {
	f.StringSliceVar(&l.urls, "url", []string{"http://127.0.0.1:9871"}, "gateways to ask, one after the other until one answers, separated by commas, such as http://192.0.2.1:9873")
	f.StringVar(&l.caFile, "ca-file", "", "file with the certificate of who vouches for https; without it, who the host trusts")
	f.StringSliceVar(&l.routes, "route", nil, "routes whose VIPs are wanted, separated by commas; default: all")
	f.BoolVar(&l.nodes, "nodes", false, "the addresses of the cluster's nodes, from the API server, instead of the routes' VIPs")
	f.StringVar(&l.kubeconfig, "kubeconfig", "", "with --nodes: kubeconfig file with the right to list and watch nodes; default: as kubectl finds it")
	f.StringVar(&l.context, "context", "", "with --nodes: context of the kubeconfig; default: its current one")
	f.StringSliceVar(&l.addresses, "node-address", []string{"InternalIP"}, "with --nodes: which of a node's addresses: InternalIP, ExternalIP or both, separated by commas")
	f.StringSliceVar(&l.within, "within", nil, "ranges that an address must lie in to be taken, whatever the list says, separated by commas; default: any")
}

// source of lists.
type source interface {
	keep.Source
	Fetch(ctx context.Context) (allowlist.List, error)
}

func (l *listed) resolve(f *pflag.FlagSet, program string, log *slog.Logger) (source, []netip.Prefix, error) {
	var wrong []string
	only := map[bool][]string{true: {"url", "ca-file", "route"}, false: {"kubeconfig", "context", "node-address"}}[l.nodes]
	for _, name := range only {
		if f.Changed(name) {
			wrong = append(wrong, "--"+name)
		}
	}
	var errs []error
	if len(wrong) > 0 && l.nodes {
		errs = append(errs, fmt.Errorf("%s: not with --nodes, which come from the API server: take one of the two away", strings.Join(wrong, ", ")))
	} else if len(wrong) > 0 {
		errs = append(errs, fmt.Errorf("%s: only with --nodes", strings.Join(wrong, ", ")))
	}
	// An empty variable of a unit or a script would take everything, where it was to
	// take some.
	for name, values := range map[string][]string{"route": l.routes, "within": l.within} {
		if f.Changed(name) && len(values) == 0 {
			errs = append(errs, fmt.Errorf("--%s is empty, which would take everything: name some, or leave it out", name))
		}
	}
	within, err := prefixes("--within", l.within)
	errs = append(errs, err)
	if !l.nodes {
		gateways, err := poll.New(l.urls, l.caFile, log)
		return gateways, within, errors.Join(append(errs, err)...)
	}
	client, err := kube.Outside(l.kubeconfig, l.context, "sallyport-"+program+"/"+version(), log)
	if err != nil {
		return nil, nil, errors.Join(append(errs, err)...)
	}
	nodes, err := kube.NewNodes(client, l.addresses, log)
	return nodes, within, errors.Join(append(errs, err)...)
}

func allowlistCommand() *cobra.Command {
	var l listed
	var output, set string
	cmd := &cobra.Command{
		Use:   "allowlist",
		Short: "Show the addresses that a firewall outside must admit",
		Long: `Asks a gateway for the VIPs of all routes, or with --nodes the API server for the
addresses of the nodes, and prints them as text, JSON, a text for "nft -f" or "ipset
restore", or a pillar for Salt. Exit status 1 when there is no answer, or one without
addresses that does not say that this is meant.`,
		Example: `  sallyport allowlist --url http://192.0.2.1:9873,http://192.0.2.2:9873
  sallyport allowlist --nodes --kubeconfig nodes.kubeconfig -o nft --set inet/filter/cluster`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := logger(cmd)
			if err != nil {
				return err
			}
			if !slices.Contains(allowlist.Formats, output) {
				return fmt.Errorf("--output %s: choose one of %s", output, strings.Join(allowlist.Formats, ", "))
			}
			var sets allowlist.Sets
			switch {
			case set == "":
			case output == allowlist.NFT:
				sets, err = allowlist.ParseNFT(set)
			case output == allowlist.IPSet:
				sets, err = allowlist.ParseIPSet(set)
			default:
				err = errors.New("only with --output nft or ipset")
			}
			if err != nil {
				return fmt.Errorf("--set %s: %w", set, err)
			}
			from, within, err := l.resolve(cmd.Flags(), "allowlist", log)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), 30*time.Second)
			defer cancel()
			list, err := from.Fetch(ctx)
			if err != nil {
				return err
			}
			if list, err = list.Only(l.routes); err != nil {
				return err
			}
			list, outside := list.Within(within)
			if outside != nil {
				log.Warn("some addresses are left out", "error", outside)
			}
			text, err := allowlist.Print(list, output, sets)
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(text)
			return err
		},
	}
	l.register(cmd.Flags())
	cmd.Flags().StringVarP(&output, "output", "o", allowlist.Text, strings.Join(allowlist.Formats, ", "))
	cmd.Flags().StringVar(&set, "set", "", "with -o nft FAMILY/TABLE/NAME, with -o ipset NAME, of the sets NAME4 and NAME6; default: inet/allowlist/sallyport, sallyport")
	cmd.AddCommand(allowlistSyncCommand())
	return cmd
}
