package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/e2e/lab"
	"github.com/sallyport/sallyport/snat"
	"github.com/sallyport/sallyport/steer"
)

// rulesOf are the tables of ours in nftables and our chains in either iptables, less
// the fence, which is always in nftables.
func (w *world) rulesOf(j int) (nft, iptables []string) {
	w.t.Helper()
	list := func(ours func(line string) bool, name string, args ...string) (found []string) {
		out, err := w.Exec(lab.NodeName(j), name, args...)
		w.must(err)
		for line := range strings.Lines(out) {
			if line = strings.TrimSpace(line); ours(line) {
				found = append(found, line)
			}
		}
		return found
	}
	nft = list(func(line string) bool {
		name := line[strings.LastIndex(line, " ")+1:]
		return name == steer.TableName || name == snat.TableName
	}, "nft", "list", "tables")
	for _, save := range []string{"iptables-nft-save", "iptables-legacy-save"} {
		iptables = append(iptables, list(func(line string) bool {
			return strings.HasPrefix(line, ":") && strings.Contains(strings.ToLower(line), "sally")
		}, save)...)
	}
	return nft, append(iptables, list(func(line string) bool { return strings.Contains(line, "sally") }, "ipset", "list", "-n")...)
}

// TestChangingNetfilterUnderTraffic: each change leaves one set of rules, and no
// packet meets none.
func TestChangingNetfilterUnderTraffic(t *testing.T) {
	w := start(t, lab.Options{Netfilter: "nftables"})
	w.seenEventually(selected(1), partner, theVIP)
	w.holder()
	tr := w.startTraffic(1, 2, 3)
	for _, netfilter := range []string{"iptables", "nftables"} {
		for j := 1; j <= w.Options.Nodes; j++ {
			w.must(w.gateway(j).Stop())
			w.must(w.agent(j).Stop())
			_, err := w.StartGateway(j, "--netfilter", netfilter)
			w.must(err)
			_, err = w.StartAgent(j, "--netfilter", netfilter)
			w.must(err)
			w.await(w.ready(lab.Gateway, j))
			w.await(w.ready(lab.Agent, j))
			w.await(func() error {
				nft, iptables := w.rulesOf(j)
				want := []string{"table ip " + snat.TableName, "table ip " + steer.TableName}
				if netfilter == "iptables" {
					if len(nft) > 0 || len(iptables) == 0 {
						return fmt.Errorf("n%d has %q and %q, wants rules in iptables only", j, nft, iptables)
					}
					return nil
				}
				slices.Sort(nft)
				if !slices.Equal(nft, want) || len(iptables) > 0 {
					return fmt.Errorf("n%d has %q and %q, wants %q only", j, nft, iptables, want)
				}
				return nil
			})
			w.flowsAgain(tr, time.Now())
		}
	}
	w.stop(tr)
	w.noLeak()
	w.oneHolder()
}
