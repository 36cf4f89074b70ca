package kube

import (
	"context"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sallyport/sallyport/api/v1alpha1"
	"github.com/sallyport/sallyport/gateway"
	"github.com/sallyport/sallyport/gateway/objects"
)

const (
	// settle gathers what belongs to one change: a pod and its namespace.
	settle = 2 * time.Millisecond
	// apart is the least time between two views: many pods come and go at once, and
	// a view of thousands of pods takes milliseconds to make and to carry out.
	apart = 50 * time.Millisecond
)

// Source follows the API server's objects.
type Source struct {
	client *Client
	node   string
	kick   chan struct{}

	routes     *table[gateway.Route]
	pods       *table[gateway.Pod]
	namespaces *table[gateway.Namespace]
	nodes      *table[gateway.Node]
}

// NewSource gives a source of all pods or, with a node's name, of that node's.
func NewSource(client *Client, node string) *Source {
	s := &Source{client: client, node: node, kick: make(chan struct{}, 1)}
	shared := objects.NewIntern()
	s.routes = newTable(v1alpha1.Kind, s.changed, func(obj any) (gateway.Route, field.ErrorList) {
		return objects.Route(obj.(*v1alpha1.EgressRoute))
	})
	s.pods = newTable("Pod", s.changed, func(obj any) (gateway.Pod, field.ErrorList) {
		p, errs := objects.Pod(obj.(*corev1.Pod))
		shared.Pod(&p)
		return p, errs
	})
	s.namespaces = newTable("Namespace", s.changed, func(obj any) (gateway.Namespace, field.ErrorList) {
		return objects.Namespace(obj.(*corev1.Namespace)), nil
	})
	s.nodes = newTable("Node", s.changed, func(obj any) (gateway.Node, field.ErrorList) {
		return objects.Node(obj.(*corev1.Node))
	})
	return s
}

// Problems are why something of the API server is not followed now. They are apart from
// the view's: an API server that is away changes nothing in the view.
func (s *Source) Problems() []gateway.Problem { return s.client.troubles.problems() }

// Run delivers the whole view, first when all kinds have been read and then soon
// after each change, until the context ends.
func (s *Source) Run(ctx context.Context, deliver func(gateway.Snapshot)) error {
	var reflectors sync.WaitGroup
	defer reflectors.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	core := func(plural string) resource { return resource{client: s.client.core, plural: plural} }
	pods, namespaces, nodes := core("pods"), core("namespaces"), core("nodes")
	routes := resource{client: s.client.routes, plural: v1alpha1.Plural, example: &v1alpha1.EgressRoute{}}
	pods.example, namespaces.example, nodes.example = &corev1.Pod{}, &corev1.Namespace{}, &corev1.Node{}
	if s.node != "" {
		pods.fields = fields.OneTermEqualSelector("spec.nodeName", s.node).String()
	}
	reflectors.Go(func() { follow(ctx, pods, s.pods, s.client.troubles) })
	reflectors.Go(func() { follow(ctx, namespaces, s.namespaces, s.client.troubles) })
	reflectors.Go(func() { follow(ctx, nodes, s.nodes, s.client.troubles) })
	reflectors.Go(func() { follow(ctx, routes, s.routes, s.client.troubles) })

	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-pause.C: // the last view is long enough ago
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.kick:
		}
		pause.Reset(settle)
		select {
		case <-ctx.Done():
			return nil
		case <-pause.C:
		}
		select { // what happened meanwhile is in this view
		case <-s.kick:
		default:
		}
		if view, ok := s.view(); ok {
			deliver(view)
		}
		pause.Reset(apart)
	}
}

func (s *Source) changed() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// Troubles that there is none at all of something there must be.
const (
	noNodes = "no nodes"
	noPeers = "no peers"
)

// view is all tables together; false as long as they are not to be believed.
func (s *Source) view() (gateway.Snapshot, bool) {
	routes, problems, routesRead := s.routes.values()
	pods, podProblems, podsRead := s.pods.values()
	namespaces, _, namespacesRead := s.namespaces.values()
	nodes, nodeProblems, nodesRead := s.nodes.values()
	if !routesRead || !podsRead || !namespacesRead || !nodesRead {
		return gateway.Snapshot{}, false
	}
	if len(nodes) == 0 && len(nodeProblems) == 0 {
		// This program runs on one. It is an API server whose store was emptied, or
		// another cluster's; taking its word would let every pod out.
		s.client.troubles.note(noNodes, gateway.Problem{
			Object: "API server " + s.client.troubles.server, Reason: gateway.Unreadable,
			Message: "it knows no node at all, so what it says is not taken: is it the right cluster, is its store being restored? What was read before stays in force",
		})
		return gateway.Snapshot{}, false
	}
	s.client.troubles.over(noNodes)
	problems = append(append(problems, podProblems...), nodeProblems...)
	return gateway.Snapshot{
		Routes: routes, Pods: pods, Namespaces: namespaces, Nodes: nodes, Problems: gateway.SortProblems(problems),
	}, true
}
