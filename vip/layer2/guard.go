package layer2

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/google/nftables"
	"sigs.k8s.io/knftables"
)

// EgressHook is a chain's hook where all that leaves by a device passes, Linux 5.16
// (CONFIG_NETFILTER_EGRESS).
const EgressHook knftables.BaseChainHook = "egress"

// Guard has the fence stop announcements, too, where they leave by the interface. They
// come from a packet socket and so pass none of the ARP hooks: a process that is stopped
// between looking at its lease and sending would announce when it goes on, however late.
//
// It is to be called again when the interface was made anew, which took its chain along.
// Where the kernel has no such hook it is an error, and the rest of the fence stands.
func (f *Fence) Guard(ctx context.Context, iface string) error {
	if iface == "lo" {
		return nil // nobody hears what is announced there
	}
	f.guarding.Lock()
	defer f.guarding.Unlock()
	f.mu.Lock()
	addrs, rungs := f.addrs, f.rungs
	f.mu.Unlock()
	if rungs == nil {
		return fmt.Errorf("guard %s: the fence is not installed", iface)
	}
	chain, again := f.guards[iface]
	if !again {
		chain = "out" + strconv.Itoa(len(f.guards)) // an interface's name need not be one for a chain
	}
	err := f.host.rules(ctx, func(tx *knftables.Transaction) error {
		if len(f.guards) == 0 {
			replaceTable(tx, knftables.NetDevFamily, addrs, rungs[0])
			guardRules(tx, rungs)
		}
		egress(tx, chain, iface)
		tx.Flush(&knftables.Chain{Family: knftables.NetDevFamily, Table: FenceTable, Name: chain})
		chains{tx, knftables.NetDevFamily}.rule(chain, "arp saddr ip @vips arp saddr ip != @held counter name fenced drop")
		return nil
	})
	if err != nil {
		return fmt.Errorf("guard the announcements on %s (nft table netdev %s, hook egress; needs Linux 5.16 with CONFIG_NETFILTER_EGRESS, and nft 1.0.1): %w", iface, FenceTable, err)
	}
	f.guards[iface] = chain
	f.mu.Lock()
	clear(f.sure) // the guard may be new, and closed
	f.mu.Unlock()
	return nil
}

// guardRules take the ARP frame of a renewal on its way to the ARP fence: one frame
// renews both, this set before the frame is sent.
func guardRules(tx *knftables.Transaction, rungs []time.Duration) {
	c := chains{tx, knftables.NetDevFamily}
	c.add("ladder", "", 0)
	c.rule("ladder", "arp operation", firstRung-1, "delete @held { arp saddr ip }")
	for i, d := range rungs {
		c.rule("ladder", "arp operation", number(rungs, i, false), "arp saddr ip @held update @held { arp saddr ip timeout", ms(d), "}")
		c.rule("ladder", "arp operation", number(rungs, i, true), "update @held { arp saddr ip timeout", ms(d), "}")
	}
	egress(tx, "renew", "lo")
	c.rule("renew", "arp operation >=", firstRung-1, "arp saddr ip @vips goto ladder")
}

func egress(tx *knftables.Transaction, chain, device string) {
	tx.Add(&knftables.Chain{
		Family: knftables.NetDevFamily, Table: FenceTable, Name: chain,
		Type: knftables.PtrTo(knftables.FilterType), Hook: knftables.PtrTo(EgressHook),
		Priority: knftables.PtrTo(knftables.BaseChainPriority("-10")), Device: knftables.PtrTo(device),
	})
}

// unguard removes what an earlier process left, whose numbers may stand for other durations.
func (f *Fence) unguard() {
	f.nft.DelTable(guardTable())
	_ = f.nft.Flush() // there is none, or the kernel has none
	clear(f.guards)
}

func guardTable() *nftables.Table {
	return &nftables.Table{Name: FenceTable, Family: nftables.TableFamilyNetdev}
}
