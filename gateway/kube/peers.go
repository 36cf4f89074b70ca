package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sallyport/sallyport/gateway"
	"github.com/sallyport/sallyport/gateway/lastview"
)

// Peers are the addresses of the hosts that the gateways' pods are on.
type Peers struct {
	client              *Client
	namespace, selector string
	file                string // the last known ones
	log                 *slog.Logger
}

// NewPeers reads "kube:NAMESPACE/LABELSELECTOR", an entry of --join.
func NewPeers(client *Client, join, stateDir string, log *slog.Logger) (*Peers, error) {
	namespace, selector, ok := strings.Cut(strings.TrimPrefix(join, Join), "/")
	if !ok || namespace == "" || selector == "" {
		return nil, fmt.Errorf("--join %s: give kube:NAMESPACE/LABELSELECTOR, such as kube:sallyport/app.kubernetes.io/component=gateway", join)
	}
	if _, err := labels.Parse(selector); err != nil {
		return nil, fmt.Errorf("--join %s: %q is no label selector (%w): give one such as app.kubernetes.io/component=gateway", join, selector, err)
	}
	return &Peers{
		client: client, namespace: namespace, selector: selector, file: filepath.Join(stateDir, "gateway-peers.json"), log: log,
	}, nil
}

// Join is how an entry of --join begins that is for Peers.
const Join = "kube:"

// Problems are why something of the API server is not followed now.
func (p *Peers) Problems() []gateway.Problem { return p.client.troubles.problems() }

// Run tells set the addresses whenever they change, first those that an earlier run
// has saved, until the context ends.
func (p *Peers) Run(ctx context.Context, set func([]netip.Addr)) error {
	last, err := p.saved()
	if err != nil {
		p.log.Error("the saved addresses of the gateways cannot be used, the API server is asked", "error", err)
	}
	if len(last) > 0 {
		set(last)
	}
	kick := make(chan struct{}, 1)
	hosts := newTable("Pod", func() {
		select {
		case kick <- struct{}{}:
		default:
		}
	}, hostOf)
	var reflector sync.WaitGroup
	defer reflector.Wait()
	reflector.Go(func() {
		follow(ctx, resource{
			client: p.client.core, plural: "pods", namespace: p.namespace, labels: p.selector, example: &corev1.Pod{},
		}, hosts, p.client.troubles)
	})
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-kick:
		}
		each, _, _ := hosts.values()
		now := gateway.SortedAddrs(slices.Concat(each...))
		if len(now) == 0 {
			// It is no news: this gateway's own pod is one of them.
			p.client.troubles.note(noPeers, gateway.Problem{
				Object: "--join " + Join + p.namespace + "/" + p.selector, Field: "--join", Reason: gateway.Misconfigured,
				Message: "no pod on a node has these labels in this namespace: correct it, or look into the gateways' pods; the addresses known before stay",
			})
			continue
		}
		p.client.troubles.over(noPeers)
		if slices.Equal(now, last) {
			continue
		}
		p.log.Info("the gateways' pods are on", "hosts", now)
		set(now)
		if err := p.save(now); err != nil {
			p.log.Error("the gateways' addresses are not saved: a restart without the API server would look for older ones", "error", err)
		}
		last = now
	}
}

// hostOf is the address of the pod's node; none when it has ended or is on none yet.
func hostOf(obj any) ([]netip.Addr, field.ErrorList) {
	status := &obj.(*corev1.Pod).Status
	if status.Phase == corev1.PodSucceeded || status.Phase == corev1.PodFailed || status.HostIP == "" {
		return nil, nil
	}
	addr, err := netip.ParseAddr(status.HostIP)
	if err != nil {
		return nil, field.ErrorList{field.Invalid(field.NewPath("status", "hostIP"), status.HostIP, "not an IP address")}
	}
	return []netip.Addr{addr.Unmap()}, nil
}

func (p *Peers) saved() ([]netip.Addr, error) {
	text, err := os.ReadFile(p.file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the gateways' addresses: %w", err)
	}
	var addrs []netip.Addr
	if err := json.Unmarshal(text, &addrs); err != nil {
		return nil, fmt.Errorf("read the gateways' addresses from %s: %w", p.file, err)
	}
	return addrs, nil
}

func (p *Peers) save(addrs []netip.Addr) error {
	text, err := json.Marshal(addrs)
	if err != nil {
		return fmt.Errorf("encode the gateways' addresses: %w", err)
	}
	return lastview.Replace(p.file, text, []byte("\n"))
}
