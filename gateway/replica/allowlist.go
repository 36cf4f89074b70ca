package replica

import (
	"net/http"
	"net/netip"

	"github.com/sallyport/sallyport/allowlist"
	"github.com/sallyport/sallyport/allowlist/endpoint"
	"github.com/sallyport/sallyport/gateway"
)

// admit makes known what partners must admit. The caller has the lock.
func (r *Replica) admit(snap gateway.Snapshot, plan gateway.Plan) {
	list := allowlist.List{Kind: allowlist.Routes, Empty: len(snap.Routes) == 0 && !snap.Doubtful()}
	for _, route := range plan.Routes {
		list.Entries = append(list.Entries, allowlist.Entry{Name: route.Name, Addresses: []netip.Addr{route.VIP}})
	}
	r.admitted = &list
	r.allowlist.Changed()
}

// admits is what partners must admit; false as long as this replica does not know.
func (r *Replica) admits() (allowlist.List, bool) {
	r.mu.Lock()
	admitted := r.admitted
	r.mu.Unlock()
	if admitted == nil {
		return allowlist.List{}, false
	}
	list := *admitted
	if problems := r.view.Problems(); !r.view.Live() {
		list.Doubt = "this gateway has only the view that an earlier run of it saved"
	} else if len(problems) > 0 {
		list.Doubt = problems[0].String()
	}
	return list, true
}

// Handlers are what it serves besides what every program does.
func (r *Replica) Handlers() map[string]http.Handler {
	return map[string]http.Handler{"GET " + endpoint.Path: r.allowlist}
}
