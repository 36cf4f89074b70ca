package nft

import (
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/knftables"

	"github.com/sallyport/sallyport/e2e/netns"
)

// What a kernel without it says is had from what no kernel has.
func TestMissingNamesWhatTheKernelHasNot(t *testing.T) {
	netns.Test(t)
	a := applier(t)
	before := now(t)
	missing, err := a.missing(t.Context(), slices.Concat(parts, []part{ruled("translation in forward", knftables.NATType, knftables.ForwardHook, "accept")}))
	if err != nil || !slices.Equal(missing, []string{"translation in forward"}) {
		t.Errorf("%q, %v", missing, err)
	}
	if missing, err := a.Missing(t.Context()); err != nil || len(missing) > 0 {
		t.Errorf("%q, %v", missing, err)
	}
	if tables := nft(t, "list", "tables"); strings.Contains(tables, tried) || now(t) != before {
		t.Errorf("something was committed:\n%s", tables)
	}
}
