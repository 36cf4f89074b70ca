package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/allowlist"
	"github.com/sallyport/sallyport/allowlist/firewall"
	"github.com/sallyport/sallyport/allowlist/keep"
)

func allowlistSyncCommand() *cobra.Command {
	var l listed
	var nft, ipset, stateDir string
	var adopt bool
	cmd := &cobra.Command{
		Use:   "sync",
		Short: "Keep sets of this host's firewall equal to the list",
		Long: `Runs on a host outside of the cluster. It waits on a gateway, or with --nodes on the API
server, for the list to change, and brings each change into the sets NAME4 and NAME6 in
one step. What it last believed is on disk: with the cluster away, also at a start, the
sets stay as they were. They are left as they are when it ends.

Needs root or NET_ADMIN. It makes the sets where there are none, and changes no set of
others unless told so by --adopt.`,
		Example: `  sallyport allowlist sync --url http://192.0.2.1:9873,http://192.0.2.2:9873 --nft inet/filter/partners --within 192.0.2.0/24
  sallyport allowlist sync --nodes --kubeconfig nodes.kubeconfig --ipset cluster`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := logger(cmd)
			if err != nil {
				return err
			}
			from, within, err := l.resolve(cmd.Flags(), "allowlist", log)
			errs := []error{err}
			var sets allowlist.Sets
			switch {
			case (nft == "") == (ipset == ""):
				err = errors.New("give one of --nft FAMILY/TABLE/NAME and --ipset NAME")
			case nft != "":
				if sets, err = allowlist.ParseNFT(nft); err != nil {
					err = fmt.Errorf("--nft %w", err)
				}
			default:
				if sets, err = allowlist.ParseIPSet(ipset); err != nil {
					err = fmt.Errorf("--ipset %w", err)
				}
			}
			if err := errors.Join(append(errs, err)...); err != nil {
				return err
			}
			local, err := firewall.New(sets, adopt)
			if err != nil {
				return err
			}
			kind := allowlist.Routes
			if l.nodes {
				kind = allowlist.Nodes
			}
			file := "allowlist-" + strings.ReplaceAll(sets.String(), " ", "-")
			return keep.New(keep.Config{
				Kind: kind, File: filepath.Join(stateDir, file), Names: l.routes, Within: within,
			}, from, local, log).Run(cmd.Context())
		},
	}
	f := cmd.Flags()
	l.register(f)
	f.StringVar(&nft, "nft", "", "sets of nftables, FAMILY/TABLE/NAME, such as inet/filter/partners for partners4 and partners6")
	f.StringVar(&ipset, "ipset", "", "sets of ipset, NAME, such as partners for partners4 and partners6")
	f.BoolVar(&adopt, "adopt", false, "take over sets that are there and that this program did not make: what they hold is replaced")
	f.StringVar(&stateDir, "state-dir", "/var/lib/sallyport", "folder for the last list that was believed")
	return cmd
}
