package nft

import (
	"log/slog"
	"testing"

	"github.com/sallyport/sallyport/netfilter/netfiltertest"
)

func TestSuite(t *testing.T) {
	netfiltertest.Run(t, netfiltertest.Suite{New: func() (netfiltertest.Applier, error) {
		return New(slog.New(slog.NewTextHandler(t.Output(), nil)))
	}})
}
