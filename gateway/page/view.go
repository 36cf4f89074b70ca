package page

import (
	"cmp"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/sallyport/sallyport/election"
	"github.com/sallyport/sallyport/gateway"
	"github.com/sallyport/sallyport/gateway/host"
)

// View is all that the page shows, as one gateway knows it. It is small: pods are
// counted, not named, and what could be thousands is cut off with its number told.
type View struct {
	Gateway  string                `json:"gateway"`
	Node     string                `json:"node"`
	Version  string                `json:"version"`
	Timing   string                `json:"timing"`
	Started  time.Time             `json:"started"`
	Live     bool                  `json:"live"`            // false: the view is an earlier run's
	Error    string                `json:"error,omitempty"` // why the view is not in the kernel
	VIPs     []VIP                 `json:"vips"`
	Routes   List[Route]           `json:"routes"`
	Nodes    List[Node]            `json:"nodes"`
	Dropped  []Dropped             `json:"dropped"`
	Problems List[gateway.Problem] `json:"problems"`
}

// List of at most so many.
type List[T any] struct {
	First []T `json:"first"`
	More  int `json:"more"` // left out
}

// VIP and what this gateway knows of its holders.
type VIP struct {
	VIP      netip.Addr `json:"vip"`
	Holder   string     `json:"holder"` // "" for nobody
	Held     bool       `json:"held"`   // by this gateway
	Term     uint64     `json:"term"`
	Voters   []string   `json:"voters"`
	Replicas int        `json:"replicas"`
	Barred   string     `json:"barred,omitempty"`
	// Replicated is false where connections are not replicated at all. Of a VIP's standbys only
	// its holder knows; InStep is this gateway's own word as one of them.
	Replicated  bool             `json:"replicated"`
	InStep      bool             `json:"inStep"`
	Standbys    []Standby        `json:"standbys"`
	Connections int              `json:"connections"`
	Worst       *host.Ports      `json:"worst,omitempty"` // nil: none is in use
	Spells      []election.Spell `json:"spells"`
}

// Standby that follows this gateway.
type Standby struct {
	Name            string  `json:"name"`
	InStep          bool    `json:"inStep"`
	LagMilliseconds float64 `json:"lagMilliseconds"` // rounded, so that a quiet view is a constant one
}

// Route that takes effect.
type Route struct {
	Name    string     `json:"name"`
	VIP     netip.Addr `json:"vip"`
	Pods    int        `json:"pods"`
	Packets uint64     `json:"packets"`
	Bytes   uint64     `json:"bytes"`

	Connections int         `json:"connections"`
	Fullest     *host.Ports `json:"fullest,omitempty"`
}

// Node of the cluster.
type Node struct {
	Name string `json:"name"`
	Pods int    `json:"pods"` // steered
}

// Dropped packets on this host.
type Dropped struct {
	Reason  string `json:"reason"`
	Packets uint64 `json:"packets"`
}

// The most of each that is shown.
const (
	mostRoutes   = 500
	mostNodes    = 200
	mostProblems = 50
)

// See makes the view of a status, with the spells of each VIP and the names of all nodes.
func See(s host.Status, spells func(vip netip.Addr) []election.Spell, nodes []string) View {
	v := View{
		Gateway: s.Name, Node: s.Node, Version: s.Version, Timing: s.Timing, Started: s.Started, Live: s.Live, Error: s.Apply.Error,
		VIPs: []VIP{}, Dropped: []Dropped{}, Problems: first(s.Problems, mostProblems),
	}
	for _, x := range s.VIPs {
		out := VIP{
			VIP: x.VIP, Holder: x.Holder, Held: x.Held, Term: x.Term, Voters: x.Voters, Replicas: x.Replicas, Barred: x.Barred,
			Connections: x.Connections, Standbys: []Standby{}, Spells: spells(x.VIP),
		}
		if len(x.Ports) > 0 {
			out.Worst = &x.Ports[0].Ports
		}
		if r := x.Replication; r != nil {
			out.Replicated, out.InStep = true, r.InStep
			for _, b := range r.Standbys {
				out.Standbys = append(out.Standbys, Standby{Name: b.Name, InStep: b.InStep, LagMilliseconds: math.Round(b.LagSeconds * 1000)})
			}
		}
		v.VIPs = append(v.VIPs, out)
	}
	routes := make([]Route, 0, len(s.Routes))
	for _, r := range s.Routes {
		routes = append(routes, Route{Name: r.Name, VIP: r.VIP, Pods: r.Pods, Packets: r.Sent.Packets, Bytes: r.Sent.Bytes, Connections: r.Connections, Fullest: r.Fullest})
	}
	slices.SortFunc(routes, func(a, b Route) int { return strings.Compare(a.Name, b.Name) })
	v.Routes, v.Nodes = first(routes, mostRoutes), first(steered(s.Pods, nodes), mostNodes)
	for _, reason := range slices.Sorted(maps.Keys(s.Dropped)) {
		v.Dropped = append(v.Dropped, Dropped{Reason: reason, Packets: s.Dropped[reason].Packets})
	}
	return v
}

// steered counts pods by node, those nodes first that have the most.
func steered(pods []host.Pod, names []string) []Node {
	counts := make(map[string]int, len(names))
	for _, name := range names {
		counts[name] = 0
	}
	for _, p := range pods {
		counts[p.Node]++
	}
	nodes := make([]Node, 0, len(counts))
	for name, n := range counts {
		nodes = append(nodes, Node{Name: name, Pods: n})
	}
	slices.SortFunc(nodes, func(a, b Node) int { return cmp.Or(b.Pods-a.Pods, strings.Compare(a.Name, b.Name)) })
	return nodes
}

func first[T any](all []T, most int) List[T] {
	n := min(len(all), most)
	return List[T]{First: append([]T{}, all[:n]...), More: len(all) - n}
}
