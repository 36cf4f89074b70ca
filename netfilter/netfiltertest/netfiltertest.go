// Package netfiltertest judges a netfilter applier by what happens to packets: it
// builds a router between pods and servers out of network namespaces, applies
// tables there and looks at which server was reached, from which source, and what
// was counted. Every applier passes the same suite.
package netfiltertest

import (
	"context"
	"os"
	"testing"

	"github.com/sallyport/sallyport/netfilter"
)

// Applier is what is judged.
type Applier interface {
	Apply(context.Context, netfilter.Table) error
	// Counters reads the counters of one table.
	Counters(ctx context.Context, table string) (map[string]netfilter.Counts, error)
	// Remove takes one table out of the kernel.
	Remove(ctx context.Context, table string) error
	// Cleanup takes everything of ours out of the kernel.
	Cleanup(context.Context) error
}

// Suite is an applier and what it is known not to do.
type Suite struct {
	// New makes the applier. It and all its methods run in the router's namespace.
	New func() (Applier, error)
	// LosesTo names the masquerades that KeepSource and SNAT do not win against,
	// such as "nft before" or "nft after".
	LosesTo map[string]bool
	// NoIPv6 leaves out the cases in that family.
	NoIPv6 bool
}

// Run runs the whole suite.
func Run(t *testing.T, s Suite) {
	if os.Geteuid() != 0 {
		t.Skip("needs root for network namespaces")
	}
	for _, c := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"Matches", s.matches},
		{"Actions", s.actions},
		{"Classification", s.classification},
		{"ConnectionKeepsItsWay", s.keepsWay},
		{"SNAT", s.snat},
		{"Masquerade", s.masquerade},
		{"ClampMSS", s.clampMSS},
		{"Zone", s.zone},
		{"Lifecycle", s.lifecycle},
		{"Repair", s.repair},
		{"Swap", s.swap},
	} {
		t.Run(c.name, c.run)
	}
}
