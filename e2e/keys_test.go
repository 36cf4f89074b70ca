package e2e

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/sallyport/sallyport/e2e/lab"
)

// TestKeysRotateUnderWay as the chart does it: the new key is added, then used, then alone. Nobody
// is parted from anybody meanwhile, whoever has read the file first; in the end the old key
// opens nothing, and whoever has only the new one is followed by and follows the others.
func TestKeysRotateUnderWay(t *testing.T) {
	t.Parallel()
	old, fresh := lab.NewKey(), lab.NewKey()
	w := newWorld(t, lab.Options{GatewayArgs: unhurried})
	w.must(w.SetGossipKeys(old))
	w.begin()
	holder := w.holder()
	rest := w.Others(holder)
	w.together(holder, rest...)
	term := w.status(lab.Gateway, holder).VIPs[0].Term
	tr := w.startTraffic(rest...)
	for i, keys := range [][]string{{old, fresh}, {fresh, old}, {fresh}} {
		w.must(w.SetGossipKeys(keys...))
		for _, j := range w.Options.GatewayNodes {
			w.await(func() error {
				log, err := os.ReadFile(w.gateway(j).Log)
				if took := bytes.Count(log, []byte(`"gossip keys changed"`)); err == nil && took <= i {
					err = fmt.Errorf("n%d has taken %d of %d key files", j, took, i+1)
				}
				return err
			})
			w.together(holder, rest...)
		}
	}
	// Nobody but who has the new key itself tells that the others use it.
	w.must(w.gateway(rest[0]).Kill())
	w.restartGateway(rest[0])
	w.together(holder, rest...)
	if v := w.status(lab.Gateway, holder).VIPs[0]; !v.Held || v.Term != term {
		t.Errorf("n%d holds %t in term %d, it did in term %d: the rotation has cost an election", holder, v.Held, v.Term, term)
	}
	w.stop(tr)
	w.noLeak()
	w.oneHolder()
}

// together waits until the holder hears the others, and all of them say that they have all of its connections.
func (w *world) together(holder int, others ...int) {
	w.t.Helper()
	w.followed(others...)
	w.await(func() error {
		v := w.status(lab.Gateway, holder).VIPs[0]
		for _, j := range others {
			if !slices.Contains(v.Voters, lab.NodeName(j)) {
				return fmt.Errorf("n%d hears only %v", holder, v.Voters)
			}
		}
		if v.Replication == nil || len(v.Replication.Standbys) < len(others) {
			return fmt.Errorf("n%d has not all standbys", holder)
		}
		for _, s := range v.Replication.Standbys {
			if !s.InStep {
				return fmt.Errorf("%s is not in step", s.Name)
			}
		}
		return nil
	})
}
