package nft

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/netfilter"
)

// Earlier names the chains of others that translate sources before ours can: the first
// chain to bind a connection wins.
func Earlier() ([]string, error) {
	var found []string
	for _, f := range []family{ipv4, unix.NFPROTO_INET} {
		filled := map[place]bool{}
		err := everyRule(f, func(at place, _ string) error {
			filled[at] = true
			return nil
		})
		if err != nil {
			return nil, err
		}
		tables, err := listTables(f)
		if err != nil {
			return nil, fmt.Errorf("list the tables of family %s: %w", families[f], err)
		}
		for table := range tables {
			p := &present{chains: map[string]chainShape{}}
			if err := p.readChains(f, table); err != nil {
				return nil, fmt.Errorf("list the chains of table %s %s: %w", families[f], table, err)
			}
			mine := hooks[netfilter.PostroutingNAT].priority
			for chain, c := range p.chains {
				if c.kind == "nat" && c.hook == unix.NF_INET_POST_ROUTING && c.priority <= mine && filled[place{f, table, chain}] && !ours(table, chain) {
					found = append(found, fmt.Sprintf("nftables table %s %s, chain %s, priority %d", families[f], table, chain, c.priority))
				}
			}
		}
	}
	slices.Sort(found)
	return found, nil
}
