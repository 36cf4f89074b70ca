package survey

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sallyport/sallyport/api/v1alpha1"
	"github.com/sallyport/sallyport/gateway"
	"github.com/sallyport/sallyport/gateway/host"
)

// Overview of a cluster.
type Overview struct {
	VIPs     []VIP             `json:"vips"`
	Routes   []Route           `json:"routes"`
	Pods     []host.Pod        `json:"pods"`    // as the agents steer them
	Dropped  map[string]uint64 `json:"dropped"` // packets by reason, of all hosts
	Gateways []Member          `json:"gateways"`
	Agents   []Member          `json:"agents"`
	Problems []gateway.Problem `json:"problems"` // each once
}

// VIP as the gateways see it together.
type VIP struct {
	VIP      netip.Addr `json:"vip"`
	Holder   string     `json:"holder"` // gateway, "" for nobody
	Node     string     `json:"node"`
	Since    time.Time  `json:"since,omitzero"`
	Term     uint64     `json:"term"`
	Voters   []string   `json:"voters"`
	Replicas int        `json:"replicas"`
	Note     string     `json:"note,omitempty"`
}

// Route as the API has it.
type Route struct {
	Name     string `json:"name"`
	VIP      string `json:"vip"`
	Holder   string `json:"holder"`
	Pods     int32  `json:"pods"`
	Accepted string `json:"accepted"`
	Ready    string `json:"ready"`
	Message  string `json:"message,omitempty"` // why it is not ready
}

func overview(members []Member, routes []v1alpha1.EgressRoute) Overview {
	o := Overview{
		Routes: []Route{}, Pods: []host.Pod{}, Dropped: map[string]uint64{},
		Gateways: []Member{}, Agents: []Member{}, Problems: []gateway.Problem{},
	}
	for _, m := range members {
		if m.Program == "gateway" {
			o.Gateways = append(o.Gateways, m)
		} else {
			o.Agents = append(o.Agents, m)
		}
		if m.Status == nil {
			continue
		}
		for reason, n := range m.Status.Dropped {
			o.Dropped[reason] += n.Packets
		}
		o.Problems = append(o.Problems, m.Status.Problems...)
		if m.Program != "gateway" {
			o.Pods = append(o.Pods, m.Status.Pods...)
		}
	}
	o.Problems = gateway.SortProblems(o.Problems)
	slices.SortFunc(o.Pods, func(a, b host.Pod) int {
		return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name), a.Addr.Compare(b.Addr))
	})
	o.VIPs = vips(o.Gateways)
	for i := range routes {
		o.Routes = append(o.Routes, route(&routes[i]))
	}
	slices.SortFunc(o.Routes, func(a, b Route) int { return strings.Compare(a.Name, b.Name) })
	return o
}

// vips puts together what the gateways say: of each VIP the holder's own word counts,
// without one that of the gateway that hears the most voters.
func vips(gateways []Member) []VIP {
	best := map[netip.Addr]VIP{}
	holders := map[netip.Addr][]string{}
	for _, m := range gateways {
		if m.Status == nil {
			continue
		}
		for _, v := range m.Status.VIPs {
			seen := VIP{VIP: v.VIP, Holder: v.Holder, Since: v.Since, Term: v.Term, Voters: v.Voters, Replicas: v.Replicas, Note: v.Barred}
			if v.Held {
				seen.Node, seen.Note = m.Node, ""
				holders[v.VIP] = append(holders[v.VIP], v.Holder)
			}
			before, told := best[v.VIP]
			if !told || before.Node == "" && (v.Held || len(seen.Voters) > len(before.Voters)) {
				best[v.VIP] = seen
			}
		}
	}
	all := slices.AppendSeq([]VIP{}, maps.Values(best))
	slices.SortFunc(all, func(a, b VIP) int { return a.VIP.Compare(b.VIP) })
	for i := range all {
		v := &all[i]
		switch held := holders[v.VIP]; {
		case len(held) > 1:
			v.Note = "held by " + strings.Join(held, " and ") + " at once: a hand-over, or report it as a bug"
		case len(held) == 0 && v.Holder != "":
			v.Note = "the holder does not answer"
		case v.Holder == "" && len(v.Voters) <= v.Replicas/2:
			v.Note = "too few gateways hear each other to agree on a holder"
		}
	}
	return all
}

func route(r *v1alpha1.EgressRoute) Route {
	out := Route{Name: r.Name, VIP: r.Spec.VIP, Holder: r.Status.Holder, Pods: r.Status.Pods, Accepted: "Unknown", Ready: "Unknown"}
	for _, c := range r.Status.Conditions {
		switch c.Type {
		case v1alpha1.Accepted:
			out.Accepted = string(c.Status)
		case v1alpha1.Programmed:
			out.Ready = string(c.Status)
		default:
			continue
		}
		if c.Status != metav1.ConditionTrue && out.Message == "" {
			out.Message = c.Reason + ": " + c.Message
		}
	}
	if r.Status.ObservedGeneration != r.Generation {
		out.Message = cmp.Or(out.Message, "its present spec has not been looked at yet")
	}
	return out
}
