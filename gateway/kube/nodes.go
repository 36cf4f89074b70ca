package kube

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sallyport/sallyport/allowlist"
)

// Nodes is the list of the nodes' addresses, for firewalls outside of the cluster. It
// needs the right to list and watch nodes, and no other.
type Nodes struct {
	client *Client
	types  []corev1.NodeAddressType
	table  *table[allowlist.Entry]
	kick   chan struct{}
	log    *slog.Logger
}

// NewNodes takes the types of addresses that count: InternalIP, ExternalIP.
func NewNodes(client *Client, types []string, log *slog.Logger) (*Nodes, error) {
	n := &Nodes{client: client, kick: make(chan struct{}, 1), log: log}
	for _, t := range types {
		if t != string(corev1.NodeInternalIP) && t != string(corev1.NodeExternalIP) {
			return nil, fmt.Errorf("--node-address %s: choose InternalIP, ExternalIP or both", t)
		}
		n.types = append(n.types, corev1.NodeAddressType(t))
	}
	n.table = newTable("Node", func() {
		select {
		case n.kick <- struct{}{}:
		default:
		}
	}, func(obj any) (allowlist.Entry, field.ErrorList) { return n.entry(obj.(*corev1.Node)) })
	return n, nil
}

func (n *Nodes) entry(node *corev1.Node) (allowlist.Entry, field.ErrorList) {
	e := allowlist.Entry{Name: node.Name}
	var errs field.ErrorList
	path := field.NewPath("status", "addresses")
	for i, a := range node.Status.Addresses {
		if !slices.Contains(n.types, a.Type) {
			continue
		}
		addr, err := netip.ParseAddr(a.Address)
		addr = addr.Unmap()
		if err == nil {
			err = allowlist.Admissible(addr)
		}
		if err != nil {
			errs = append(errs, field.Invalid(path.Index(i).Child("address"), a.Address, err.Error()))
		} else if !slices.Contains(e.Addresses, addr) {
			e.Addresses = append(e.Addresses, addr)
		}
	}
	return e, errs
}

// Fetch asks once.
func (n *Nodes) Fetch(ctx context.Context) (allowlist.List, error) {
	var nodes corev1.NodeList
	if err := get(n.client.core, "nodes", "").Do(ctx).Into(&nodes); err != nil {
		object, message := n.client.troubles.explain("nodes", err)
		return allowlist.List{}, fmt.Errorf("list nodes: %s: %s", object, message)
	}
	list := allowlist.List{Kind: allowlist.Nodes}
	for i := range nodes.Items {
		e, errs := n.entry(&nodes.Items[i])
		n.say(errs, e.Name)
		list.Entries = append(list.Entries, e)
	}
	return list, nil
}

// Run delivers the list, and again when it is another one, until the context ends. What
// keeps it from that is logged.
func (n *Nodes) Run(ctx context.Context, deliver func(allowlist.List)) error {
	nodes := resource{client: n.client.core, plural: "nodes", example: &corev1.Node{}}
	var reflector sync.WaitGroup
	reflector.Go(func() { follow(ctx, nodes, n.table, n.client.troubles) })
	defer reflector.Wait()
	said := ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-n.kick:
		}
		entries, problems, read := n.table.values()
		if !read {
			continue
		}
		var text strings.Builder
		for _, p := range problems {
			fmt.Fprintln(&text, p)
		}
		if now := strings.TrimSpace(text.String()); now != said {
			said = now
			if now != "" {
				n.log.Warn("addresses of nodes are not taken, those before stay", "problems", now)
			}
		}
		deliver(allowlist.List{Kind: allowlist.Nodes, Entries: entries})
	}
}

func (n *Nodes) say(errs field.ErrorList, node string) {
	for _, err := range errs {
		n.log.Warn("an address of a node is not taken", "node", node, "problem", err.Error())
	}
}
