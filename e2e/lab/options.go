// Package lab makes, out of network namespaces on one Linux machine, the network
// that Sallyport is for: nodes with pods behind a masquerading bridge CNI, the
// segment they share, a router, and a partner behind it that admits only the VIP.
// It runs the programs on the nodes, breaks things on demand, and measures what
// pods and partner see of it. The packet tests, the demo, the benchmarks and the
// command cmd/lab all stand on it.
//
//	pod-1-1 pod-1-2     pod-2-1 …            partner 203.0.113.5 (only the VIP)
//	    \   /              |                    |    203.0.113.9 (everyone)
//	 cni0 10.244.1.1   cni0 10.244.2.1       router 203.0.113.1
//	   node n1            node n2               |   192.0.2.254
//	 eth0 192.0.2.1     eth0 192.0.2.2          |
//	      \________________|___________________/
//	             switch: one port each, cut one by one
package lab

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"
)

// Masquerade is how the nodes' CNI gives pods the node's address on their way out.
type Masquerade string

// The ways of masquerading that are found in the field.
const (
	MasqueradeNft            Masquerade = "nft"             // a table of its own, priority srcnat
	MasqueradeIptablesNft    Masquerade = "iptables-nft"    // the default
	MasqueradeIptablesLegacy Masquerade = "iptables-legacy" // the xtables of old
	NoMasquerade             Masquerade = "none"            // pods leave with their own address
)

// Options describe a lab. The zero value of every field but Binary is useful.
type Options struct {
	// Prefix of every namespace and folder of the lab, by which a later run finds
	// what an interrupted one left. Packages whose tests run at the same time need
	// different ones. Default "spl".
	Prefix string
	// Nodes from 1 to 9, default 3.
	Nodes int
	// GatewayNodes run a gateway replica; default all.
	GatewayNodes []int
	// PodsPerNode that exist from the beginning: pod-1-1, pod-1-2, ...; default 2,
	// negative for none.
	PodsPerNode int
	// TwoNetworks gives every node a second interface, eth1 in 10.0.0.0/24, for
	// gossip, tunnel and traffic between pods.
	TwoNetworks bool
	// VIPs that the gateways hold and the partner admits; default 192.0.2.10.
	VIPs []netip.Addr
	// Binary is the sallyport program; needed to start gateways and agents only.
	Binary string
	// Netfilter is handed to the programs as --netfilter; "" leaves their default.
	Netfilter string
	// Masquerade of the CNI, default MasqueradeIptablesNft.
	Masquerade Masquerade
	// MasqueradeLate leaves the masquerade out until Lab.Masquerade is called, so
	// that it is made after our rules.
	MasqueradeLate bool
	// BareNodes leaves the nodes without a network for pods, which a CNI then makes:
	// no bridge, no masquerade, no routes to the other nodes' pods.
	BareNodes bool
	// RPFilter of the nodes' interfaces, as net.ipv4.conf.*.rp_filter; default 2,
	// loose, which is what systemd sets. -1 turns it off.
	RPFilter int
	// GossipPort that CutGossip drops, default 7964.
	GossipPort int
	// SYNRetry is the agents' --syn-retry; the lab's process is then in a control group
	// of the lab's.
	SYNRetry time.Duration
	// GatewayArgs and AgentArgs are further flags for the programs.
	GatewayArgs, AgentArgs []string
	// Env is added to the programs' environment, as "NAME=value".
	Env []string
	// Dir for manifests, logs and state; default a folder of the prefix's name
	// among the temporary files. It is removed with the lab.
	Dir string
	// Log of what the lab does; default none.
	Log *slog.Logger
}

var prefixForm = regexp.MustCompile(`^[a-z][a-z0-9]{1,7}$`)

func (o Options) withDefaults() Options {
	if o.Prefix == "" {
		o.Prefix = "spl"
	}
	if o.Nodes == 0 {
		o.Nodes = 3
	}
	if o.GatewayNodes == nil {
		for j := 1; j <= o.Nodes; j++ {
			o.GatewayNodes = append(o.GatewayNodes, j)
		}
	}
	if o.PodsPerNode == 0 {
		o.PodsPerNode = 2
	}
	if o.VIPs == nil {
		o.VIPs = []netip.Addr{netip.MustParseAddr("192.0.2.10")}
	}
	if o.Masquerade == "" {
		o.Masquerade = MasqueradeIptablesNft
	}
	if o.RPFilter == 0 {
		o.RPFilter = 2
	}
	if o.GossipPort == 0 {
		o.GossipPort = 7964
	}
	if o.Dir == "" {
		o.Dir = filepath.Join(os.TempDir(), "sallyport-lab-"+o.Prefix)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// Validate joins everything that is wrong with the options.
func (o Options) Validate() error {
	o = o.withDefaults()
	var errs []error
	if !prefixForm.MatchString(o.Prefix) {
		errs = append(errs, fmt.Errorf("prefix %q: give 2 to 8 lower-case letters and digits, a letter first", o.Prefix))
	}
	if o.Nodes < 1 || o.Nodes > 9 {
		errs = append(errs, fmt.Errorf("%d nodes: give 1 to 9", o.Nodes))
	}
	if o.PodsPerNode > 200 {
		errs = append(errs, fmt.Errorf("%d pods on a node: give at most 200", o.PodsPerNode))
	}
	for _, j := range o.GatewayNodes {
		if j < 1 || j > o.Nodes {
			errs = append(errs, fmt.Errorf("gateway on node %d: there are nodes 1 to %d", j, o.Nodes))
		}
	}
	for _, v := range o.VIPs {
		if last := v.AsSlice(); !outsideNet.Contains(v) || last[3] < 10 || last[3] > 250 {
			errs = append(errs, fmt.Errorf("VIP %s: give one of 192.0.2.10 to 192.0.2.250", v))
		}
	}
	ways := []Masquerade{MasqueradeNft, MasqueradeIptablesNft, MasqueradeIptablesLegacy, NoMasquerade}
	if !slices.Contains(ways, o.Masquerade) {
		errs = append(errs, fmt.Errorf("masquerade %q: give one of %q", o.Masquerade, ways))
	}
	return errors.Join(errs...)
}
