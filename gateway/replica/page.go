package replica

import (
	"context"
	"net/http"

	"github.com/sallyport/sallyport/election/priority"
	"github.com/sallyport/sallyport/gateway/page"
)

// spellsKept of each VIP, for the page: some weeks of a cluster that is well, and of one
// that is not enough to see what is wrong.
const spellsKept = 64

// Page is the status page and what keeps it current.
func (r *Replica) Page() (document, events http.HandlerFunc) {
	return r.page.Document, r.page.Events
}

// see is what the page shows. No packet and no heartbeat waits for it.
func (r *Replica) see(ctx context.Context) (v page.View) {
	priority.Ordinary(func() {
		snap, _ := r.view.Snapshot()
		nodes := make([]string, 0, len(snap.Nodes))
		for _, n := range snap.Nodes {
			nodes = append(nodes, n.Name)
		}
		v = page.See(r.Status(ctx), r.electorate.spells, nodes)
	})
	return v
}
