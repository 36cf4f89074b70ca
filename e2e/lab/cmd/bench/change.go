package main

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sallyport/sallyport/e2e/lab"
)

// change lets pods change: of ten changes three are pods that come, three that go, two
// that take another route, and two of which nothing matters here.
func (p *population) change(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(writers)
	tick := time.NewTicker(time.Second / kubeRate)
	defer tick.Stop()
	began := time.Now()
	came := 0
	for i := 0; time.Since(began) < kubeTime; i++ {
		select {
		case <-ctx.Done():
			return g.Wait()
		case <-tick.C:
			p.changed++
		}
		switch i % 10 {
		case 0, 3, 6:
			n := came
			came++
			g.Go(func() error { return p.come(ctx, n) })
		case 1, 4, 7:
			g.Go(func() error { return p.leave(ctx) })
		case 2, 5:
			g.Go(func() error {
				return p.patch(ctx, i, fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, lab.RoutesAnnotation, kubeRoute(i/10)))
			})
		default:
			g.Go(func() error {
				return p.patch(ctx, i, fmt.Sprintf(`{"status":{"message":"%d"}}`, i), "status")
			})
		}
	}
	err := g.Wait()
	p.took = time.Since(began)
	return err
}

func (p *population) come(ctx context.Context, n int) error {
	node := 1
	if n%onNodeOne > 0 {
		node = 2 + n%(kubeNodes-1)
	}
	c := &newcomer{name: fmt.Sprintf("new-%d", n), namespace: kubeNamespace(n), node: node, addr: podAddr(node, 1000+n)}
	if err := p.pod(ctx, c.name, n, node, c.addr, c); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.made = append(p.made, c)
	return nil
}

// leave deletes the pod that came first of those that were there for a while.
func (p *population) leave(ctx context.Context) error {
	p.mu.Lock()
	if p.gone >= len(p.made) || time.Since(p.made[p.gone].answered) < lifetime {
		p.mu.Unlock()
		return nil
	}
	c := p.made[p.gone]
	p.gone++
	p.mu.Unlock()
	now := &metav1.DeleteOptions{GracePeriodSeconds: new(int64)} // there is no kubelet to end it
	if err := p.client.Delete().Namespace(c.namespace).Resource("pods").Name(c.name).Body(now).Do(ctx).Error(); err != nil {
		return fmt.Errorf("delete pod %s: %w", c.name, err)
	}
	return nil
}

// sightings gathers when the kernel had each address that came.
func (p *population) sightings(ctx context.Context, costs map[lab.Role]*kubeCost) error {
	for _, c := range p.made {
		for role, table := range map[lab.Role]string{lab.Agent: agentTable, lab.Gateway: gatewayTable} {
			if role == lab.Agent && c.node != 1 {
				continue
			}
			at, err := c.seen.in(ctx, table)
			if err != nil {
				return err
			}
			costs[role].fromRequest.add(at.Sub(c.sent))
			costs[role].fromAnswer.add(max(0, at.Sub(c.answered))) // the kernel may be sooner than the answer
		}
	}
	return nil
}
