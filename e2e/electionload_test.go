package e2e

import (
	"fmt"
	"maps"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/e2e/lab"
	"github.com/sallyport/sallyport/flows"
	"github.com/sallyport/sallyport/flows/conntrack"
	"github.com/sallyport/sallyport/tunnel"
)

// churn makes connections of the VIP in a node's kernel, 2,000 a second where the machine can,
// and ends each a second later. The kernel tells of them as of any.
type churn struct {
	made atomic.Int64
	node atomic.Int64
	stop func()
}

func (w *world) startChurn(node int) *churn {
	w.t.Helper()
	const tick, each, lives = 10 * time.Millisecond, 20, 100
	c, quit := &churn{}, make(chan struct{})
	c.node.Store(int64(node))
	var done sync.WaitGroup
	var failed error
	put := func(round int) error {
		changes := make([]flows.Change, 0, 2*each)
		for i := range each {
			changes = append(changes, flows.Change{Op: flows.Put, Flow: churned(round*each + i)})
			if round >= lives {
				changes = append(changes, flows.Change{Op: flows.Delete, Flow: churned((round-lives)*each + i)})
			}
		}
		return w.change(int(c.node.Load()), changes)
	}
	done.Go(func() {
		ticker := time.NewTicker(tick)
		defer ticker.Stop()
		for round, began := 0, time.Now(); failed == nil; {
			select {
			case <-quit:
				return
			case <-ticker.C:
			}
			// What a busy machine made late is caught up.
			for due := int(time.Since(began) / tick); round < due && failed == nil; round++ {
				if failed = put(round); failed == nil {
					c.made.Add(each)
				}
			}
		}
	})
	c.stop = sync.OnceFunc(func() {
		close(quit)
		done.Wait()
		w.must(failed)
	})
	w.t.Cleanup(c.stop)
	return c
}

// change changes the VIP's connections in a node's kernel.
func (w *world) change(j int, changes []flows.Change) error {
	marks := tunnel.DefaultConfig().Marks
	slots, err := marks.Slots(w.Options.VIPs)
	if err != nil {
		return err
	}
	scope := conntrack.Scope{VIP: theVIP, Zone: gatewayZone, Mark: conntrack.Mark{Value: marks.Value(slots[theVIP]), Mask: marks.Mask}}
	ns, err := w.Namespace(lab.NodeName(j))
	if err != nil {
		return err
	}
	return ns.Do(func() error { return lab.Track(scope, changes) })
}

func churned(n int) flows.Flow {
	n %= 1 << 16
	port := uint16(1500 + n%28000)
	return flows.Flow{
		Key: flows.Key{
			Src: netip.AddrFrom4([4]byte{10, 250, byte(n >> 8), byte(n)}), Dst: netip.AddrFrom4([4]byte{198, 51, 100, byte(1 + n/28000)}),
			SrcPort: port, DstPort: 443, Protocol: unix.IPPROTO_TCP,
		},
		Port: port, State: conntrack.TCPEstablished, Status: uint8(conntrack.SeenReply | conntrack.Assured),
	}
}

// more waits until so many more were made.
func (w *world) more(c *churn, n int64) {
	w.t.Helper()
	for until := c.made.Load() + n; c.made.Load() < until; {
		before := c.made.Load()
		w.await(func() error {
			if c.made.Load() == before {
				return fmt.Errorf("no connection was made since %d", before)
			}
			return nil
		})
	}
}

// moves are the changes of holder that each gateway has seen.
func (w *world) moves(nodes ...int) map[int]map[string]uint64 {
	w.t.Helper()
	seen := map[int]map[string]uint64{}
	for _, j := range nodes {
		seen[j] = w.status(lab.Gateway, j).VIPs[0].Transitions
	}
	return seen
}

// TestElectionsUnderReplication: while connections are made and replicated by the thousand, the VIP stays where it
// is; when its holder dies another has it at once, with what was replicated; and it stays there, also when
// the dead one comes back and catches up.
func TestElectionsUnderReplication(t *testing.T) {
	w := start(t, lab.Options{Nodes: 4, GatewayNodes: []int{1, 2, 3}, GatewayArgs: unhurried})
	first := w.holder()
	tr := w.startTraffic(4)
	w.inStep(first, 1, 2, 3)
	before := w.moves(1, 2, 3)
	began := time.Now()
	c := w.startChurn(first)
	steady := func(what string, before map[int]map[string]uint64, nodes ...int) {
		t.Helper()
		const crowd = 10000
		w.more(c, crowd)
		for j, seen := range w.moves(nodes...) {
			if !maps.Equal(seen, before[j]) {
				t.Errorf("%s, with %d connections made, n%d saw the VIP move: %v, before %v", what, crowd, j, seen, before[j])
			}
		}
		t.Logf("%s: %.0f connections a second", what, float64(c.made.Load())/time.Since(began).Seconds())
	}
	steady("the first holder", before, 1, 2, 3)

	rest := others(w.Options.GatewayNodes, first)
	// One that lives on, made amid the others.
	kept := churned(0)
	kept.Src = netip.MustParseAddr("10.251.0.1")
	w.must(w.change(first, []flows.Change{{Op: flows.Put, Flow: kept}}))
	known := func(j int) error {
		for tuple := range w.kept(j) {
			if tuple.Src == kept.Src {
				return nil
			}
		}
		return fmt.Errorf("n%d does not have the connection that n%d has", j, first)
	}
	for _, j := range rest {
		w.await(func() error { return known(j) })
	}
	w.must(w.gateway(first).Kill())
	heir := w.awaitHolder(rest...)
	w.must(known(heir))
	c.node.Store(int64(heir))
	w.flowsAgain(tr, time.Now())
	w.await(func() error { // everybody left has understood
		for _, j := range rest {
			if v := w.status(lab.Gateway, j).VIPs[0]; v.Holder != lab.NodeName(heir) {
				return fmt.Errorf("n%d takes %q for the holder", j, v.Holder)
			}
		}
		return nil
	})
	after := w.moves(rest...)
	began = time.Now()
	c.made.Store(0)
	steady("the heir", after, rest...)
	w.restartGateway(first)
	w.await(func() error {
		r := w.status(lab.Gateway, heir).VIPs[0].Replication
		if r == nil || len(r.Standbys) != 2 {
			return fmt.Errorf("n%d has not both standbys", heir)
		}
		return nil
	})
	steady("the heir, with all back", after, rest...)
	c.stop()
	w.inStep(heir, 1, 2, 3)
	w.flowsAgain(tr, time.Now())
	w.stop(tr)
	w.noLeak()
	w.oneHolder()
}
