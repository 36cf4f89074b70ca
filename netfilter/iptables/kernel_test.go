package iptables_test

import (
	"log/slog"
	"testing"

	"github.com/sallyport/sallyport/netfilter/iptables"
	"github.com/sallyport/sallyport/netfilter/netfiltertest"
)

// TestSuite is the suite that every applier passes, in both variants.
func TestSuite(t *testing.T) {
	for v, loses := range map[iptables.Variant]map[string]bool{
		iptables.NFT:    {"iptables-legacy after": true, "nft after": true},
		iptables.Legacy: {"iptables-nft after": true, "nft after": true},
	} {
		t.Run(string(v), func(t *testing.T) {
			netfiltertest.Run(t, netfiltertest.Suite{
				New: func() (netfiltertest.Applier, error) {
					return iptables.New(v, slog.New(slog.DiscardHandler))
				},
				LosesTo: loses,
			})
		})
	}
}
