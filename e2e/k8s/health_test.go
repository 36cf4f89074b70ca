package k8s

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/e2e/lab"
)

// in is the world as a part of the scenario sees it.
func (w *world) in(t *testing.T) *world {
	part := *w
	part.t = t
	return &part
}

func (w *world) everyNode() []int {
	var all []int
	for j := 1; j <= w.Lab.Options.Nodes; j++ {
		all = append(all, j)
	}
	return all
}

// healthy awaits that all programs on all nodes do their work from what the API server
// says now, that one gateway holds the VIP, and that the route's status names its node.
func (w *world) healthy() {
	w.t.Helper()
	w.must(w.AwaitNodes(w.ctx))
	w.await(func() error {
		// Not by w.kubectl: the API server may have come back this moment.
		taints, err := w.API.Kubectl(w.ctx, "", "get", "nodes", "-o", "jsonpath={.items[*].spec.taints}")
		if taints = strings.TrimSpace(taints); err == nil && taints != "" {
			err = fmt.Errorf("nodes have taints: %s", taints)
		}
		return err
	})
	for _, j := range w.everyNode() {
		w.await(w.ready(lab.Gateway, j))
		w.await(w.ready(lab.Agent, j))
	}
	w.await(func() error {
		holders := w.holders()
		if len(holders) != 1 {
			return fmt.Errorf("nodes %v say that they hold the VIP, want one", holders)
		}
		holder := lab.NodeName(holders[0])
		told, err := w.API.Kubectl(w.ctx, "", "get", "egressroute/payments", "-o", "jsonpath={.status.holder}")
		if told = strings.TrimSpace(told); err == nil && told != holder {
			err = fmt.Errorf("%s holds the VIP, and the route's status says %q", holder, told)
		}
		return err
	})
}

// reported awaits that the route's status names the holder's node.
func (w *world) reported(holder int) {
	w.t.Helper()
	w.kubectl("wait", "egressroute/payments", "--for=jsonpath={.status.holder}="+lab.NodeName(holder), "--timeout", patience.String())
}

// holders are the nodes whose gateway says that it holds the VIP.
func (w *world) holders() []int {
	var holders []int
	for _, j := range w.everyNode() {
		if s, err := w.status(lab.Gateway, j); err == nil && len(s.VIPs) > 0 && s.VIPs[0].Held {
			holders = append(holders, j)
		}
	}
	return holders
}

// ready is satisfied when a program does its work, and no longer from a saved view.
func (w *world) ready(role lab.Role, j int) func() error {
	return func() error {
		ctx, cancel := context.WithTimeout(w.ctx, 10*time.Second)
		defer cancel()
		code, body, err := w.Lab.Get(ctx, role, j, "/readyz")
		if err != nil {
			return err
		}
		if code != http.StatusOK {
			return fmt.Errorf("%s on n%d: %d %s", role, j, code, strings.TrimSpace(string(body)))
		}
		s, err := w.status(role, j)
		if err == nil && !s.Live {
			err = fmt.Errorf("%s on n%d works from a saved view", role, j)
		}
		return err
	}
}

// restarted awaits that a program on a node was started after the moment and works.
func (w *world) restarted(role lab.Role, j int, after time.Time, live bool) {
	w.t.Helper()
	w.await(func() error {
		s, err := w.status(role, j)
		switch {
		case err != nil:
			return err
		case !s.Started.After(after):
			return fmt.Errorf("%s on n%d runs since %s", role, j, s.Started)
		case !s.Apply.Done || s.Apply.Error != "":
			return fmt.Errorf("%s on n%d has not applied its view: %s", role, j, s.Apply.Error)
		case s.Live != live:
			return fmt.Errorf("%s on n%d: live is %t, want %t", role, j, s.Live, live)
		case len(s.Routes) == 0:
			return fmt.Errorf("%s on n%d knows no route", role, j)
		}
		return nil
	})
}
