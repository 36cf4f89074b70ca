package host

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"slices"

	"github.com/sallyport/sallyport/flows/conntrack"
	"github.com/sallyport/sallyport/gateway"
	"github.com/sallyport/sallyport/netfilter"
	"github.com/sallyport/sallyport/trace"
	"github.com/sallyport/sallyport/tunnel"
	"github.com/sallyport/sallyport/tunnel/vxlan"
)

// TraceAnswer is what GET /trace gives: one of the two.
type TraceAnswer struct {
	Agent   *trace.Agent   `json:"agent,omitempty"`
	Gateway *trace.Gateway `json:"gateway,omitempty"`
}

// TracePath is where a program tells of the packet; vip may be the zero Addr.
func TracePath(q trace.Question, vip netip.Addr) string {
	path := fmt.Sprintf("/trace?namespace=%s&pod=%s&to=%s:%d/%s", q.Namespace, q.Pod, q.Packet.Dst, q.Packet.Port, q.Packet.Protocol)
	if vip.IsValid() {
		path += "&vip=" + vip.String()
	}
	return path
}

func serveTrace(p Program) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query()
		q := trace.Question{Namespace: query.Get("namespace"), Pod: query.Get("pod")}
		var err error
		if q.Packet, err = trace.Destination(query.Get("to")); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		vip, _ := netip.ParseAddr(query.Get("vip")) // without one the program's own view says which
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(p.Trace(r.Context(), q, vip)) // the client went away
	}
}

// Kernel is what a trace reads of this host.
type Kernel struct {
	Filter *Filter
	Tunnel *vxlan.Applier
	Zone   uint16 // of connection tracking

	// What is to be there.
	Table netfilter.Table
	Plan  tunnel.Plan
}

// someConnections are enough to see how a pod's connections fare.
const someConnections = 5

// Look adds to c what the kernel has of the packet. About are the addresses whose
// elements of sets matter; the way asked for is that of the mark to the address.
func (k Kernel) Look(ctx context.Context, c *trace.Common, packet gateway.Packet, about []netip.Addr, way netip.Addr, mark uint32) {
	note := func(err error) {
		if err != nil {
			c.Errors = append(c.Errors, err.Error())
		}
	}
	var err error
	c.Filter, err = k.Filter.Pending(ctx, k.Table, about)
	note(err)
	c.Tunnel, err = k.Tunnel.Pending(k.Plan, c.View.Addr)
	note(err)
	for _, p := range k.Tunnel.Check() {
		c.Settings = append(c.Settings, p.Object+" "+p.Message)
	}
	if c.Way, err = k.Tunnel.Way(way, mark); err != nil {
		c.NoWay = err.Error()
	}
	entries, err := conntrack.Dump(conntrack.IPv4, conntrack.Mark{}, func(e *conntrack.Entry) bool {
		o := e.Original
		return e.Zone == k.Zone && o.Src == c.View.Addr && o.Dst == packet.Dst && o.Protocol == uint8(packet.Protocol) && o.DstPort == packet.Port
	})
	note(err)
	all := make([]trace.Connection, 0, len(entries))
	for _, e := range entries {
		all = append(all, trace.Connection{
			From: netip.AddrPortFrom(e.Original.Src, e.Original.SrcPort), As: netip.AddrPortFrom(e.Reply.Dst, e.Reply.DstPort),
			Answered: e.Status&conntrack.SeenReply != 0, Mark: e.Mark,
		})
	}
	c.Connections = telling(all)
}

// telling are some of the connections: of a busy pod's thousands first those that fare as few do.
func telling(all []trace.Connection) []trace.Connection {
	kind := func(c trace.Connection) trace.Connection {
		return trace.Connection{As: netip.AddrPortFrom(c.As.Addr(), 0), Answered: c.Answered, Mark: c.Mark}
	}
	count := map[trace.Connection]int{}
	for _, c := range all {
		count[kind(c)]++
	}
	slices.SortStableFunc(all, func(a, b trace.Connection) int { return count[kind(a)] - count[kind(b)] })
	return all[:min(len(all), someConnections)]
}
