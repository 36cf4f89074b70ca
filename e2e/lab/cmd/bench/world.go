package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/sallyport/sallyport/e2e/lab"
	"github.com/sallyport/sallyport/gateway/host"
)

// patience is how long anything that is not measured may take.
const patience = 30 * time.Second

// route lets the first pod of each node leave by the VIP.
const route = `
vip: 192.0.2.10
namespaceSelector: {}
destinations:
- cidr: 203.0.113.5/32
`

// world is a lab in which something is measured: pod-j-1 is selected.
type world struct {
	*lab.Lab
	probe *probe // nil until a client of its is wanted
}

// Close ends the probe before its lab, and tells what went wrong with either.
func (w *world) Close() error { return errors.Join(w.probe.close(), w.Lab.Close()) }

// up builds a lab with the route and no program running.
func (b *bench) up(suffix string, o lab.Options) (*world, error) {
	o.Prefix, o.Binary = b.prefix+suffix, b.binary
	if o.PodsPerNode == 0 {
		o.PodsPerNode = 1
	}
	l, err := lab.Up(o)
	if err != nil {
		return nil, err
	}
	w := &world{Lab: l}
	errs := []error{w.Manifests.WriteRoute("payments", route)}
	for _, p := range w.Pods() {
		errs = append(errs, w.Annotate(p.Name, "payments"))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return w, nil
}

// start starts every program and waits until traffic flows.
func (w *world) start() error {
	if err := w.StartAll(); err != nil {
		return err
	}
	return w.flows()
}

// flows waits until all programs are ready, one holds, and every other node's pod
// is seen as the VIP.
func (w *world) flows() error {
	for _, j := range w.Options.GatewayNodes {
		if err := lab.Await(patience, w.ready(lab.Gateway, j)); err != nil {
			return err
		}
	}
	for j := 1; j <= w.Options.Nodes; j++ {
		if err := lab.Await(patience, w.ready(lab.Agent, j)); err != nil {
			return err
		}
	}
	for j := 1; j <= w.Options.Nodes; j++ {
		if err := w.seen(pod(j)); err != nil {
			return err
		}
	}
	return nil
}

func pod(j int) string { return fmt.Sprintf("pod-%d-1", j) }

// seen waits until the partner sees the pod as the VIP.
func (w *world) seen(pod string) error {
	return lab.Await(patience, func() error {
		as, err := w.SeenAs(pod, lab.PartnerAddr, time.Second)
		if err == nil && as != w.Options.VIPs[0] {
			err = fmt.Errorf("%s is seen as %s", pod, as)
		}
		return err
	})
}

func (w *world) ready(role lab.Role, j int) func() error {
	return func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		code, body, err := w.Get(ctx, role, j, "/readyz")
		if err == nil && code != http.StatusOK {
			err = fmt.Errorf("%s on n%d: %s", role, j, body)
		}
		return err
	}
}

func (w *world) status(role lab.Role, j int) (s host.Status, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, body, err := w.Get(ctx, role, j, "/status")
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(body, &s); err != nil {
		return s, fmt.Errorf("read the status of the %s on n%d: %w", role, j, err)
	}
	return s, nil
}

// holder waits until a gateway says that it holds the VIP.
func (w *world) holder() (holder int, err error) {
	err = lab.Await(patience, func() error {
		for _, j := range w.Options.GatewayNodes {
			if s, err := w.status(lab.Gateway, j); err == nil && len(s.VIPs) > 0 && s.VIPs[0].Held {
				holder = j
				return nil
			}
		}
		return errors.New("nobody holds the VIP")
	})
	return holder, err
}

// programs are those that run.
func (w *world) programs() []*lab.Program {
	var all []*lab.Program
	for j := 1; j <= w.Options.Nodes; j++ {
		for _, role := range []lab.Role{lab.Gateway, lab.Agent} {
			if p, err := w.Program(role, j); err == nil && p.Alive() {
				all = append(all, p)
			}
		}
	}
	return all
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
