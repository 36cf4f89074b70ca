// Package survey asks all gateways and agents of a cluster for their status, from
// outside, and puts the answers together.
package survey

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/sallyport/sallyport/api/v1alpha1"
	"github.com/sallyport/sallyport/gateway/host"
)

// Cluster is what is asked of the API server.
type Cluster interface {
	Installation
	EgressRoutes(ctx context.Context) ([]v1alpha1.EgressRoute, error)
}

// Installation lists the pods of Sallyport.
type Installation interface {
	Pods(ctx context.Context, namespace, labels string) ([]corev1.Pod, error)
}

// Forwarder asks HTTP servers on the loopback of pods.
type Forwarder interface {
	Get(ctx context.Context, namespace, pod string, port int, path string) ([]byte, error)
}

// Config of a survey.
type Config struct {
	Namespace string // "": all
	Selector  string // labels of the pods of an installation
	// Timeout for each pod; AtOnce is how many are asked at the same time.
	Timeout time.Duration
	AtOnce  int
}

// componentLabel says what a pod of an installation is: "gateway" or "agent".
const componentLabel = "app.kubernetes.io/component"

// Member is one gateway or agent.
type Member struct {
	Program   string       `json:"program"`
	Namespace string       `json:"namespace"`
	Pod       string       `json:"pod"`
	Node      string       `json:"node"`
	Ready     bool         `json:"ready"`
	Problem   string       `json:"problem,omitempty"` // why it is not ready, or did not answer
	Status    *host.Status `json:"status,omitempty"`  // its answer

	port int
	err  error
}

// Take one survey. It fails where nothing can be learned at all; what a single pod
// does not answer is told in its Member.
func Take(ctx context.Context, c Config, cluster Cluster, forwarder Forwarder) (Overview, error) {
	members, err := c.members(ctx, cluster)
	if err != nil {
		return Overview{}, err
	}
	routes, err := cluster.EgressRoutes(ctx)
	switch {
	case apierrors.IsForbidden(err):
		return Overview{}, fmt.Errorf("%w: ask for the right to list egressroutes of sallyport.dev", err)
	case apierrors.IsNotFound(err):
		return Overview{}, fmt.Errorf("%w: the cluster has no CRD of sallyport.dev: upgrade the Helm release", err)
	case err != nil:
		return Overview{}, err
	}
	c.askAll(ctx, members, forwarder)
	if refused := slices.IndexFunc(members, func(m Member) bool { return apierrors.IsForbidden(m.err) }); refused >= 0 &&
		!slices.ContainsFunc(members, func(m Member) bool { return m.Status != nil }) {
		m := members[refused]
		return Overview{}, fmt.Errorf("%w: ask for the right to get and create pods/portforward in namespace %s", m.err, m.Namespace)
	}
	return overview(members, routes), nil
}

// members of the installation, sorted.
func (c Config) members(ctx context.Context, cluster Installation) ([]Member, error) {
	pods, err := cluster.Pods(ctx, c.Namespace, c.Selector+","+componentLabel+" in (gateway,agent)")
	where := "in any namespace"
	if c.Namespace != "" {
		where = "in namespace " + c.Namespace
	}
	switch {
	case apierrors.IsForbidden(err) && c.Namespace == "":
		return nil, fmt.Errorf("%w: give --namespace, or ask for the right to list pods in all namespaces", err)
	case apierrors.IsForbidden(err):
		return nil, fmt.Errorf("%w: ask for the right to list pods %s", err, where)
	case err != nil:
		return nil, err
	}
	members := make([]Member, 0, len(pods))
	for i := range pods {
		members = append(members, member(&pods[i]))
	}
	if len(members) == 0 {
		return nil, fmt.Errorf("no gateway or agent %s has the labels %s: is Sallyport installed there? Look with helm list -A, or give --namespace and --selector", where, c.Selector)
	}
	slices.SortFunc(members, func(a, b Member) int {
		return cmp.Or(strings.Compare(a.Program, b.Program), strings.Compare(a.Node, b.Node), strings.Compare(a.Pod, b.Pod))
	})
	return members, nil
}

func member(p *corev1.Pod) Member {
	m := Member{Program: p.Labels[componentLabel], Namespace: p.Namespace, Pod: p.Name, Node: p.Spec.NodeName}
	for _, c := range p.Spec.Containers {
		for _, port := range c.Ports {
			if port.Name == "http" {
				m.port = int(port.ContainerPort)
			}
		}
	}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			m.Ready = c.Status == corev1.ConditionTrue
		}
	}
	switch {
	case m.Node == "":
		m.Problem = "no node takes it: kubectl describe pod tells why"
	case p.Status.Phase != corev1.PodRunning:
		m.Problem = "the pod is " + string(p.Status.Phase)
	case m.port == 0:
		m.Problem = "no container port of it is named http"
	}
	return m
}

// askAll fills in the answers.
func (c Config) askAll(ctx context.Context, members []Member, forwarder Forwarder) {
	turns := make(chan struct{}, max(1, c.AtOnce))
	var asked sync.WaitGroup
	for i := range members {
		m := &members[i]
		if m.Problem != "" {
			m.Ready = false
			continue
		}
		turns <- struct{}{}
		asked.Go(func() {
			defer func() { <-turns }()
			m.ask(ctx, c.Timeout, forwarder)
		})
	}
	asked.Wait()
}

func (m *Member) ask(ctx context.Context, timeout time.Duration, forwarder Forwarder) {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("no answer within %v", timeout))
	defer cancel()
	body, err := forwarder.Get(ctx, m.Namespace, m.Pod, m.port, "/status")
	if err == nil {
		var s host.Status
		if err = json.Unmarshal(body, &s); err == nil {
			m.Status = &s
		}
	}
	switch {
	case err != nil:
		m.Ready, m.err, m.Problem = false, err, "does not answer: "+err.Error()
	case m.Status.Apply.Error != "":
		m.Ready, m.Problem = false, "not applied: "+m.Status.Apply.Error
	case !m.Ready:
		m.Problem = "its readiness probe fails: see its problems, or kubectl describe pod"
	case !m.Status.Live:
		m.Problem = "works from the view it saved: the API server gives it none"
	}
}
