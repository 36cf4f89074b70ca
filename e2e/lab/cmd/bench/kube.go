package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/sallyport/sallyport/e2e/cluster"
	"github.com/sallyport/sallyport/e2e/lab"
)

const (
	kubeNodes, kubeRoutes, kubeVIPs = 500, 500, 10
	kubeRate                        = 100 // changes a second
	kubeTime                        = time.Minute
	kubeRelease                     = "sallyport" // and its namespace
)

// kubeCost is what one program took of the machine and of the API server.
type kubeCost struct {
	ready                   time.Duration
	before, resident, peak  float64 // MB
	processors              float64 // of one, while pods change
	applies                 float64 // of views, while pods change
	asked                   calls
	fromRequest, fromAnswer trials // seconds until the kernel
}

// kube runs one gateway and one agent on a node that is one of many, against a real API
// server that knows more pods than a node of the lab could have.
func (b *bench) kube(ctx context.Context) (_ string, err error) {
	programs, err := cluster.Programs(ctx, os.Stderr)
	if err != nil {
		return "", err
	}
	o := lab.Options{Prefix: b.prefix + "k", Binary: b.binary, Nodes: 1, PodsPerNode: -1, BareNodes: true}
	for i := range kubeVIPs {
		o.VIPs = append(o.VIPs, netip.AddrFrom4([4]byte{192, 0, 2, byte(10 + i)}))
	}
	l, err := lab.Up(o)
	if err != nil {
		return "", err
	}
	w := &world{Lab: l}
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w\n%s", err, w.LogTails(10))
		}
		err = errors.Join(err, w.Close())
	}()
	api, err := cluster.StartAPIServerOn(ctx, l, programs)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, api.Close()) }()
	if err := installRoles(ctx, api); err != nil {
		return "", err
	}
	p, err := newPopulation(api)
	if err != nil {
		return "", err
	}
	progress("kube: making %d nodes, %d routes and %d pods", kubeNodes, kubeRoutes, b.pods)
	if err := p.make(ctx, b.pods); err != nil {
		return "", err
	}
	costs := map[lab.Role]*kubeCost{lab.Agent: {}, lab.Gateway: {}}
	for _, role := range []lab.Role{lab.Gateway, lab.Agent} {
		if err := w.startOnKube(ctx, role, api, costs[role]); err != nil {
			return "", err
		}
		progress("kube: the %s is ready after %v", role, costs[role].ready.Round(time.Millisecond))
	}
	if p.changes, err = watchSets(w, lab.NodeName(1)); err != nil {
		return "", err
	}
	defer p.changes.close()
	if err := wait(ctx, settling); err != nil {
		return "", err
	}
	if err := w.underChange(ctx, api, p, costs); err != nil {
		return "", err
	}
	return kubeText(b.pods, p, costs), nil
}

// installRoles gives the programs what the chart gives them, and no more.
func installRoles(ctx context.Context, api *cluster.APIServer) error {
	objects, err := api.Helm(ctx, "template", kubeRelease, "charts/sallyport", "--namespace", kubeRelease, "--kube-version", "1.34",
		"--set", "gateway.vips={192.0.2.10}", "--show-only", "templates/rbac.yaml", "--show-only", "templates/crd.yaml")
	if err != nil {
		return err
	}
	if _, err := api.Kubectl(ctx, "", "create", "namespace", kubeRelease); err != nil {
		return err
	}
	if _, err := api.Kubectl(ctx, objects, "apply", "--server-side", "-f", "-"); err != nil {
		return err
	}
	_, err = api.Kubectl(ctx, "", "wait", "--for=condition=Established", "--timeout=60s", "crd/egressroutes.sallyport.dev")
	return err
}

func (w *world) startOnKube(ctx context.Context, role lab.Role, api *cluster.APIServer, c *kubeCost) error {
	file := filepath.Join(w.Options.Dir, string(role)+".kubeconfig")
	if err := api.Account(ctx, kubeRelease, kubeRelease+"-"+string(role), file); err != nil {
		return err
	}
	began := time.Now()
	if _, err := w.Start(role, 1, "--source", "kube", "--kubeconfig", file); err != nil {
		return err
	}
	if err := lab.Await(patience, w.ready(role, 1)); err != nil {
		return err
	}
	c.ready = time.Since(began)
	return nil
}

// underChange measures what the programs take while pods change.
func (w *world) underChange(ctx context.Context, api *cluster.APIServer, p *population, costs map[lab.Role]*kubeCost) error {
	told, err := os.Stat(api.AuditLog)
	if err != nil {
		return fmt.Errorf("find the audit log: %w", err)
	}
	used := map[lab.Role]time.Duration{}
	for role, c := range costs {
		program, err := w.Program(role, 1)
		if err != nil {
			return err
		}
		if c.before, _, err = memoryOf(program.Pid); err != nil {
			return err
		}
		if used[role], err = processorTime(program.Pid); err != nil {
			return err
		}
		if c.applies, err = w.applies(ctx, role); err != nil {
			return err
		}
	}
	progress("kube: %d changes a second for %v", kubeRate, kubeTime)
	if err := p.change(ctx); err != nil {
		return err
	}
	for role, c := range costs {
		program, err := w.Program(role, 1)
		if err != nil {
			return err
		}
		after, err := processorTime(program.Pid)
		if err != nil {
			return err
		}
		c.processors = (after - used[role]).Seconds() / p.took.Seconds()
		if c.resident, c.peak, err = memoryOf(program.Pid); err != nil {
			return err
		}
		applied, err := w.applies(ctx, role)
		if err != nil {
			return err
		}
		c.applies = applied - c.applies
	}
	asked, err := callsSince(api.AuditLog, told.Size())
	if err != nil {
		return err
	}
	for role, c := range costs {
		c.asked = asked["system:serviceaccount:"+kubeRelease+":"+kubeRelease+"-"+string(role)]
	}
	return p.sightings(ctx, costs)
}
