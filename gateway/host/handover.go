package host

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
)

// Handover is what became of one that was asked for.
type Handover struct {
	VIP  netip.Addr `json:"vip"`
	From string     `json:"from"`
	To   string     `json:"to"`
	// Milliseconds in which packets waited: from the old holder's last to the new one's first.
	Milliseconds float64 `json:"milliseconds"`
}

// handsOver is a Program that has VIPs to hand over.
type handsOver interface {
	HandOver(ctx context.Context, vip netip.Addr, to string) (Handover, error)
}

// HandoverHeader has to be in a request. A browser sends it to no other site without
// asking, and this one does not answer.
const HandoverHeader = "Sallyport-Handover"

// handOver serves POST /handover?vip=ADDR&to=NAME to who is on this host.
func handOver(p handsOver) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !local(r) || r.Header.Get(HandoverHeader) == "" {
			http.Error(w, "a hand-over is asked for on the gateway's host: run sallyport handover there", http.StatusForbidden)
			return
		}
		vip, err := netip.ParseAddr(r.FormValue("vip"))
		if err != nil {
			http.Error(w, fmt.Sprintf("--vip %q: give the address to hand over, such as 192.0.2.10", r.FormValue("vip")), http.StatusBadRequest)
			return
		}
		done, err := p.HandOver(r.Context(), vip, r.FormValue("to"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(done) // the client went away
	}
}

// local tells whether the request was made on this host: by way of loopback, or to an
// address of the host from the same one, which nobody else can have.
func local(r *http.Request) bool {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	at, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if err != nil || !ok {
		return false
	}
	to, err := netip.ParseAddrPort(at.String())
	return err == nil && (from.Addr().Unmap().IsLoopback() || from.Addr().Unmap() == to.Addr().Unmap())
}
