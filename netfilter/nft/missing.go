package nft

import (
	"context"
	"fmt"

	"sigs.k8s.io/knftables"
)

// part is something that rules are made of and a kernel may lack, by its version or by
// how it was built.
type part struct {
	name string
	made []knftables.Object
}

const tried = "sally_try"

var parts = []part{
	{"maps of ranges of several fields", []knftables.Object{
		&knftables.Map{Family: knftables.IPv4Family, Table: tried, Name: "m", Type: portVerdict.declaration(ipv4), Flags: []knftables.SetFlag{knftables.IntervalFlag}},
	}},
	ruled("connection-tracking zones", knftables.FilterType, knftables.PreroutingHook, "ct zone set 51"),
	ruled("source translation", knftables.NATType, knftables.PostroutingHook, "snat to 192.0.2.1"),
	ruled("a limit on TCP's segment size", knftables.FilterType, knftables.ForwardHook, "tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu"),
}

func ruled(name string, kind knftables.BaseChainType, hook knftables.BaseChainHook, rule string) part {
	return part{name, []knftables.Object{
		&knftables.Chain{Family: knftables.IPv4Family, Table: tried, Name: "c", Type: &kind, Hook: &hook, Priority: knftables.PtrTo(knftables.BaseChainPriority("0"))},
		&knftables.Rule{Family: knftables.IPv4Family, Table: tried, Chain: "c", Rule: rule},
	}}
}

// Missing names what this kernel, or its nft, has not of what our rules are made of.
func (a *Applier) Missing(ctx context.Context) ([]string, error) { return a.missing(ctx, parts) }

// The kernel judges transactions that are then given up instead of committed: nothing changes.
func (a *Applier) missing(ctx context.Context, parts []part) (names []string, err error) {
	try := func(p part) error {
		tx := a.nft.NewTransaction()
		tx.Add(&knftables.Table{Family: knftables.IPv4Family, Name: tried})
		for _, object := range p.made {
			tx.Add(object)
		}
		return a.nft.Check(ctx, tx)
	}
	if err := try(part{}); err != nil {
		return nil, fmt.Errorf("try what the kernel has: %w", err)
	}
	for _, p := range parts {
		if try(p) != nil {
			names = append(names, p.name)
		}
	}
	return names, ctx.Err()
}
