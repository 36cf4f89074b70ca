package k8s

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/e2e/cluster"
	"github.com/sallyport/sallyport/e2e/lab"
)

// telling is how long the VIP may be nobody's for the figures to tell something: what
// retries after 100 ms, and then after no longer than it has waited already, is done
// before others retry at all.
const telling = 400 * time.Millisecond

// cuts are how often the holder's node loses its power.
const cuts = 3

// TestSYNRetry begins connections while the holder's node dies, in pods whose agents let
// them try again after 100 ms: none of them waits for the second of everybody's first
// retry. The gateways have the timing that users have.
func TestSYNRetry(t *testing.T) {
	w := start(t, cluster.Options{})
	w.install("agent.synRetry=100ms")
	w.apply(payments)
	w.kubectl("wait", "egressroute/payments", "--for=condition=Programmed", "--timeout", patience.String())
	bank := w.deploy(app{name: "bank", to: partner, routes: "payments", echo: 5 * time.Millisecond, connects: 20 * time.Millisecond})
	w.first(bank, asVIP)
	told := false
	for range cuts {
		w.healthy()
		w.seen(bank, asVIP)
		for _, j := range w.everyNode() {
			w.await(func() error { return w.sooner(j) })
		}
		holder := w.holder(w.everyNode()...)
		pods := w.pods(bank)
		cut, err := w.PowerCut(holder)
		w.must(err)
		for _, p := range pods {
			if p.node != holder {
				told = w.begunInGap(p, cut) || told
			}
		}
		w.must(w.PowerOn(holder))
		w.back(bank)
	}
	if !told {
		t.Logf("no gap was shorter than %s: this machine is too busy to tell", telling)
	}
	for _, j := range w.everyNode() {
		s, err := w.status(lab.Gateway, j)
		w.must(err)
		t.Logf("n%d has seen the VIP move since its boot: %v", j, s.VIPs[0].Transitions)
	}
	w.noLeak()
	w.oneHolder()
}

// sooner is satisfied when the agent of node j says that connections of its pods try
// again sooner, in its status and in its metrics.
func (w *world) sooner(j int) error {
	s, err := w.status(lab.Agent, j)
	if err != nil {
		return err
	}
	_, body, err := w.Lab.Get(w.ctx, lab.Agent, j, "/metrics")
	switch {
	case err != nil:
		return err
	case s.SYNRetry == nil || s.SYNRetry.Connections == 0:
		return fmt.Errorf("the agent of n%d has no connection try again sooner: %+v, %v", j, s.SYNRetry, s.Problems)
	case !strings.Contains(string(body), "\nsallyport_syn_retry_seconds 0.1\n"):
		return fmt.Errorf("the agent of n%d does not count it:\n%s", j, body)
	}
	return nil
}

// begunInGap looks at the connections that a pod began between the power cut and the first
// answer to a datagram sent after it. It tells whether the gap was short enough for that.
func (w *world) begunInGap(p pod, cut time.Time) (told bool) {
	w.t.Helper()
	var gap time.Duration
	var begun lab.Timeline
	w.await(func() error {
		r, err := w.hear(p, cut)
		if err != nil {
			return err
		}
		var ok bool
		if gap, ok = r.Echo.NextReply(cut); !ok {
			return fmt.Errorf("no datagram of %s is answered since the power cut", p.name)
		}
		begun = r.Connects.Between(cut, cut.Add(gap))
		for _, e := range begun.Exchanges {
			if e.Answered.IsZero() && e.Err == nil {
				return fmt.Errorf("a connection of %s waits since %s", p.name, e.Sent)
			}
		}
		return nil
	})
	p95 := begun.Latency(.95)
	w.t.Logf("from n%d: gap %s; %d connections begun in it, %d failed, established after p50 %s, p95 %s", p.node, gap.Round(time.Millisecond),
		len(begun.Exchanges), begun.Lost(), begun.Latency(.5).Round(time.Millisecond), p95.Round(time.Millisecond))
	if gap > telling {
		return false
	}
	if p95 >= time.Second || begun.Lost() > 0 {
		w.t.Errorf("connections that %s began in a gap of %s: p95 %s, %d failed, want less than the second of a first retry", p.name, gap, p95, begun.Lost())
	}
	return len(begun.Exchanges) > 0
}
