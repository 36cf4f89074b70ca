package survey

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/sallyport/sallyport/gateway/host"
	"github.com/sallyport/sallyport/trace"
)

// Workloads gives the pods of applications.
type Workloads interface {
	Installation
	// Pod is nil when there is none of the name.
	Pod(ctx context.Context, namespace, name string) (*corev1.Pod, error)
}

// target is a program to be asked. What it is may show in its answer only.
type target struct {
	program, where string
	get            func(ctx context.Context, path string) ([]byte, error)

	answer host.TraceAnswer
	err    error
}

// Trace asks the agent of the pod's node and all gateways of a cluster, from outside.
func Trace(ctx context.Context, c Config, cluster Workloads, forwarder Forwarder, q trace.Question) (trace.Facts, error) {
	pod, err := cluster.Pod(ctx, q.Namespace, q.Pod)
	if err != nil {
		return trace.Facts{}, err
	}
	api := apiPod(pod)
	if !api.Found || api.Node == "" {
		return trace.Facts{Question: q, API: api}, nil
	}
	members, err := c.members(ctx, cluster)
	if err != nil {
		return trace.Facts{}, err
	}
	var targets []*target
	agents := 0
	for _, m := range members {
		if m.Program == "agent" && m.Node != api.Node {
			continue
		}
		if m.Program == "agent" {
			agents++
		}
		targets = append(targets, &target{program: m.Program, where: m.Node, get: func(ctx context.Context, path string) ([]byte, error) {
			if m.Problem != "" {
				return nil, errors.New(m.Problem)
			}
			return forwarder.Get(ctx, m.Namespace, m.Pod, m.port, path)
		}})
	}
	facts := gather(ctx, q, c.Timeout, targets)
	facts.API = api
	if agents == 0 {
		facts.Silent = append(facts.Silent, trace.Silent{Program: "agent", Where: api.Node, Why: "no agent's pod is on the node: see the DaemonSet's tolerations and node selector"})
	}
	for _, t := range targets {
		if apierrors.IsForbidden(t.err) {
			return facts, fmt.Errorf("%w: ask for the right to get and create pods/portforward in the namespace of the Helm release", t.err)
		}
	}
	return facts, nil
}

func apiPod(p *corev1.Pod) *trace.Pod {
	if p == nil {
		return &trace.Pod{}
	}
	out := &trace.Pod{Found: true, Node: p.Spec.NodeName, Phase: string(p.Status.Phase)}
	for _, ip := range p.Status.PodIPs {
		if a, err := netip.ParseAddr(ip.IP); err == nil {
			out.Addrs = append(out.Addrs, a)
		}
	}
	return out
}

// Image is that of the installation's containers.
func Image(ctx context.Context, c Config, cluster Installation) (string, error) {
	pods, err := cluster.Pods(ctx, c.Namespace, c.Selector+","+componentLabel+" in (gateway,agent)")
	if err != nil {
		return "", err
	}
	for _, p := range pods {
		for _, container := range p.Spec.Containers {
			return container.Image, nil
		}
	}
	return "", errors.New("no gateway or agent has been found: give the image of one with --probe-image")
}

// TraceAt asks the programs at the addresses of --http.
func TraceAt(ctx context.Context, addrs []string, timeout time.Duration, q trace.Question) trace.Facts {
	var targets []*target
	for _, addr := range addrs {
		targets = append(targets, &target{where: addr, get: func(ctx context.Context, path string) ([]byte, error) { return get(ctx, addr, path) }})
	}
	facts := gather(ctx, q, timeout, targets)
	if facts.Agent == nil {
		facts.Silent = append(facts.Silent, trace.Silent{Program: "agent", Why: "none of " + strings.Join(addrs, ", ") + " is an agent that answers"})
	} else if on := facts.Agent.View.Node; facts.Agent.View.Found && on != facts.Agent.Node {
		facts.Agent = nil
		facts.Silent = append(facts.Silent, trace.Silent{Program: "agent", Where: on, Why: "its address is not among " + strings.Join(addrs, ", ")})
	}
	return facts
}

func get(ctx context.Context, addr, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+path, nil)
	if err != nil {
		return nil, fmt.Errorf("--http %s: %w", addr, err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", addr, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answers %s: %.200s", addr, resp.Status, body)
	}
	return body, err
}

// gather asks all at once; which VIP is meant is the agent's word, and a gateway that
// thought of another is asked again.
func gather(ctx context.Context, q trace.Question, timeout time.Duration, targets []*target) trace.Facts {
	facts := trace.Facts{Question: q}
	ask(ctx, timeout, host.TracePath(q, netip.Addr{}), targets)
	for _, t := range targets {
		a := t.answer.Agent
		if a != nil && (facts.Agent == nil || a.View.Found && (!facts.Agent.View.Found || a.View.Node == a.Node)) {
			facts.Agent = a
		}
	}
	if facts.Agent != nil && facts.Agent.View.VIP.IsValid() {
		vip := facts.Agent.View.VIP
		other := slices.DeleteFunc(slices.Clone(targets), func(t *target) bool {
			return t.answer.Gateway == nil || t.answer.Gateway.View.VIP == vip
		})
		ask(ctx, timeout, host.TracePath(q, vip), other)
	}
	for _, t := range targets {
		switch {
		case t.err != nil:
			facts.Silent = append(facts.Silent, trace.Silent{Program: t.program, Where: t.where, Why: t.err.Error()})
		case t.answer.Gateway != nil:
			facts.Gateways = append(facts.Gateways, *t.answer.Gateway)
		}
	}
	return facts
}

func ask(ctx context.Context, timeout time.Duration, path string, targets []*target) {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("no answer within %v", timeout))
	defer cancel()
	var asked sync.WaitGroup
	for _, t := range targets {
		asked.Go(func() {
			var body []byte
			if body, t.err = t.get(ctx, path); t.err != nil {
				return
			}
			t.answer = host.TraceAnswer{}
			if t.err = json.Unmarshal(body, &t.answer); t.err == nil && t.answer.Agent == nil && t.answer.Gateway == nil {
				t.err = errors.New("it does not answer as Sallyport does")
			}
		})
	}
	asked.Wait()
}
