package nft

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"sigs.k8s.io/knftables"

	"github.com/sallyport/sallyport/e2e/netns"
	nf "github.com/sallyport/sallyport/netfilter"
)

// noProgram is an nft that cannot be run.
type noProgram struct{ knftables.Interface }

var errRun = errors.New("nft was run")

func (noProgram) Run(context.Context, *knftables.Transaction) error { return errRun }

// selections is a table with every kind of set that pods and routes change:
// where vmap, its classifier leads to chains, else to marks.
func selections(vmap bool) nf.Table {
	use := nf.Classify{By: "routes"}
	t := nf.Table{
		Name:        "sally_edit",
		Sets:        []nf.Set{{Name: "peers"}},
		Classifiers: []nf.Classifier{{Name: "routes"}},
	}
	if vmap {
		use.To = map[uint32]string{1: "one", 2: "two"}
		t.Chains = []nf.Chain{{Name: "one"}, {Name: "two"}}
	}
	t.Chains = append([]nf.Chain{{Name: "steer", Hook: nf.PreroutingMangle, Rules: []nf.Rule{
		{Match: nf.Match{NotSrcSet: "peers"}, Action: use},
	}}}, t.Chains...)
	return t
}

// another is a change such as a pod or a route makes.
func another(t *nf.Table, random *rand.Rand) {
	c := &t.Classifiers[0]
	c.Classes = nil
	for range 1 + random.IntN(4) {
		var targets []nf.Target
		for range random.IntN(4) {
			target := nf.Target{
				CIDR:  netip.PrefixFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(random.IntN(256))}), 20+random.IntN(13)).Masked(),
				Value: 1 + random.Uint32N(2),
			}
			if random.IntN(2) == 0 {
				first := uint16(random.IntN(1000))
				target.Ports = []nf.ProtocolPorts{{Protocol: []uint8{6, 17}[random.IntN(2)], Ports: nf.Ports{First: first, Last: first + uint16(random.IntN(3))}}}
			}
			targets = append(targets, target)
		}
		c.Classes = append(c.Classes, targets)
	}
	c.Sources = nil
	t.Sets[0].Addrs = nil
	for i := range 20 {
		a := netip.AddrFrom4([4]byte{10, 244, 0, byte(i)})
		if random.IntN(2) == 0 {
			c.Sources = append(c.Sources, nf.Source{Addr: a, Class: random.IntN(len(c.Classes))})
		}
		if random.IntN(2) == 0 {
			t.Sets[0].Addrs = append(t.Sets[0].Addrs, a)
		}
	}
}

// TestElementsGoWithoutTheProgram changes elements of every kind, many times, with no
// nft to run, and then all at once with it: what the one wrote, the other must be able
// to take away.
func TestElementsGoWithoutTheProgram(t *testing.T) {
	for _, vmap := range []bool{true, false} {
		t.Run(fmt.Sprintf("verdicts=%t", vmap), func(t *testing.T) {
			netns.Test(t)
			ctx, random := context.Background(), rand.New(rand.NewPCG(1, 2))
			with, without := applier(t), applier(t)
			without.nft = noProgram{without.nft}
			table := selections(vmap)
			if err := with.Apply(ctx, table); err != nil {
				t.Fatal(err)
			}
			for n := range 60 {
				another(&table, random)
				if err := without.Apply(ctx, table); err != nil {
					t.Fatalf("change %d: %v", n, err)
				}
				before := now(t)
				if err := with.Apply(ctx, table); err != nil || now(t) != before {
					t.Fatalf("change %d left something to do (%v):\n%s", n, err, nft(t, "list", "table", "ip", table.Name))
				}
			}
			if text := nft(t, "list", "table", "ip", table.Name); !strings.Contains(text, "203.0.") || !strings.Contains(text, "10.244.0.") {
				t.Errorf("nft does not list what was written:\n%s", text)
			}
			another(&table, random)
			table.Chains[0].Rules = append(table.Chains[0].Rules, nf.Rule{Action: nf.Return{}})
			if err := without.Apply(ctx, table); !errors.Is(err, errRun) {
				t.Errorf("a change of rules without nft: %v", err)
			}
			if err := with.Apply(ctx, table); err != nil {
				t.Errorf("nft cannot change what was written without it: %v", err)
			}
		})
	}
}

// TestManyElementsAtOnce is more than one send buffer holds.
func TestManyElementsAtOnce(t *testing.T) {
	netns.Test(t)
	ctx, a, table := context.Background(), applier(t), selections(true)
	table.Classifiers[0].Classes = [][]nf.Target{{{CIDR: netip.MustParsePrefix("203.0.113.0/24"), Value: 1}}}
	for _, pods := range []int{0, few / 2, few, 20 * few, 1} {
		table.Classifiers[0].Sources = nil
		for i := range pods {
			source := nf.Source{Addr: netip.AddrFrom4([4]byte{10, 244, byte(i >> 8), byte(i)})}
			table.Classifiers[0].Sources = append(table.Classifiers[0].Sources, source)
		}
		if err := a.Apply(ctx, table); err != nil {
			t.Fatalf("%d pods: %v", pods, err)
		}
		have, _, err := read(ipv4, table.Name)
		if err != nil {
			t.Fatal(err)
		}
		if got := len(have.elements[sourcesMap("routes")]); got != pods {
			t.Errorf("%d pods are in the kernel, not %d", got, pods)
		}
	}
}
