// Package gateway decides what Sallyport does: from a Snapshot of the cluster
// (routes, pods, namespaces, nodes) it derives the Plan that gateways and node
// agents carry out, and the Problems that keep parts of the cluster from being
// served. It is pure: the same Snapshot always gives the same Plan, sorted.
package gateway

import (
	"net/netip"
	"strconv"
	"time"
)

// Snapshot is the cluster as one source saw it at one moment. Sources build it
// from API objects; nothing in it has been judged yet beyond being well formed.
type Snapshot struct {
	Routes     []Route
	Pods       []Pod
	Namespaces []Namespace
	Nodes      []Node
	// Internal are further ranges that no route takes: what the nodes' pod ranges
	// do not show, such as the Service range.
	Internal []netip.Prefix
	// Problems the source met while reading objects: files that do not parse,
	// objects that the API type's validation refuses.
	Problems []Problem
}

// Route is a valid EgressRoute.
type Route struct {
	Name              string
	Generation        int64
	Created           time.Time // zero when the source knows none: such routes are the youngest
	VIP               netip.Addr
	NamespaceSelector Selector
	PodSelector       *Selector // nil: pods opt in by annotation only
	Destinations      []Destination
	// FailOpen lets the first packets of pods that nobody knows yet go: failClosed is
	// false. So named because what an older version saved must read as the default.
	FailOpen bool
	// Exclusive keeps everybody else's packets from the destinations.
	Exclusive bool
	// Audit asks for a record of the route's connections. It is left out of what is saved
	// unless it is set, so that an older version reads that.
	Audit bool `json:",omitempty"`
}

// Destination is one address range of a route, less its exceptions, on certain ports.
type Destination struct {
	CIDR   netip.Prefix
	Except []netip.Prefix
	Ports  []Port // none: every protocol and port
}

// Port is an inclusive range of one transport protocol.
type Port struct {
	Protocol Protocol
	First    uint16
	Last     uint16
}

// Protocol is an IP protocol number (IANA, "Assigned Internet Protocol Numbers").
type Protocol uint8

// The transport protocols that have ports Sallyport can select by.
const (
	TCP  Protocol = 6
	UDP  Protocol = 17
	SCTP Protocol = 132
)

// Pod is a pod that has been scheduled; one without addresses yet has none.
type Pod struct {
	Namespace   string
	Name        string
	UID         string
	Labels      map[string]string
	Annotation  string // value of sallyport.dev/egress-routes
	Annotated   bool   // the annotation is present, be it empty: then the namespace's default does not apply
	Node        string
	Addrs       []netip.Addr
	HostNetwork bool
	// Ended pods (Succeeded, Failed) have given their addresses back.
	Ended bool
	// Terminating pods are being deleted: they still run, but where another pod has
	// the same address, it is no longer theirs.
	Terminating bool
}

// Namespace carries the labels that routes select by and the default annotation.
type Namespace struct {
	Name       string
	Labels     map[string]string
	Annotation string
	Annotated  bool
}

// Node is a node of the cluster: pods behind it, a tunnel end on it.
type Node struct {
	Name string
	// Addrs are all addresses the node sends from; the first of each family is
	// its tunnel end (InternalIP).
	Addrs    []netip.Addr
	PodCIDRs []netip.Prefix
}

// Selector is a label selector; the zero value selects everything.
type Selector struct {
	MatchLabels map[string]string
	Expressions []Requirement
}

// Requirement is one matchExpressions term.
type Requirement struct {
	Key      string
	Operator Operator
	Values   []string
}

// Operator of a Requirement, spelt as in the Kubernetes API.
type Operator string

// The operators of a label selector.
const (
	In           Operator = "In"
	NotIn        Operator = "NotIn"
	Exists       Operator = "Exists"
	DoesNotExist Operator = "DoesNotExist"
)

// Problem is something that keeps part of the configuration from taking effect.
// It names the object and the cure; everything else goes on.
type Problem struct {
	// Object is "Kind name" or "Kind namespace/name", or the file's path.
	Object  string `json:"object"`
	File    string `json:"file,omitempty"`
	Line    int    `json:"line,omitempty"` // in File, from 1; 0: not known
	Field   string `json:"field,omitempty"`
	Reason  Reason `json:"reason"`
	Message string `json:"message"` // what is wrong and what to do about it
}

// Reason classifies a Problem in one CamelCase word, for metrics and conditions.
type Reason string

// Reasons of Problems.
const (
	Unreadable       Reason = "Unreadable"       // a file or folder cannot be read or parsed
	Invalid          Reason = "Invalid"          // an object its validation refuses
	Duplicate        Reason = "Duplicate"        // the same object twice, one address twice
	UnknownRoute     Reason = "UnknownRoute"     // an annotation names a route that does not exist
	NotAllowed       Reason = "NotAllowed"       // the route does not admit the pod's namespace
	HostNetwork      Reason = "HostNetwork"      // a pod on its node's network cannot be steered
	Overlap          Reason = "Overlap"          // two routes of one pod match the same packets
	UnknownVIP       Reason = "UnknownVIP"       // no gateway is configured to hold the route's VIP
	UnknownNode      Reason = "UnknownNode"      // a pod's node, or a program's own, has no such address: others refuse what comes from there
	UnknownNamespace Reason = "UnknownNamespace" // a pod's namespace is not in the view
	Misconfigured    Reason = "Misconfigured"    // flags or host settings
)

// String is the problem on one line: file, object and field, then the message.
func (p Problem) String() string {
	s := p.Object
	at := p.File
	if p.Line > 0 {
		at += ":" + strconv.Itoa(p.Line)
	}
	switch {
	case p.File == p.Object && p.File != "":
		s = at
	case p.File != "":
		s = at + ": " + s
	}
	if p.Field != "" {
		s += ": " + p.Field
	}
	return s + ": " + p.Message
}
