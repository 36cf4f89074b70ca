package e2e

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/e2e/lab"
	"github.com/sallyport/sallyport/gateway"
)

// With no gateway a selected pod's SYNs are lost, and sent again soon; an unselected
// pod's are as they were. Which of the two a connection is, its agent counts.
func TestOnlySelectedPodsSYNsAreSentAgainSooner(t *testing.T) {
	w := newWorld(t, lab.Options{Nodes: 2, GatewayNodes: []int{1}, SYNRetry: 100 * time.Millisecond})
	_, err := w.StartAgent(1)
	w.must(err)
	w.await(w.ready(lab.Agent, 1))
	counted := func() uint64 {
		t.Helper()
		s := w.status(lab.Agent, 1).SYNRetry
		if s == nil {
			t.Fatal("the agent does not say that it does it")
		}
		return s.Connections
	}
	asUsual, err := w.StartConnects(unselected(1), partner, 20*time.Millisecond)
	w.must(err)
	w.await(func() error {
		if len(asUsual.Report().Exchanges) < 10 {
			return errors.New("no connections are begun")
		}
		return nil
	})
	if n := counted(); n != 0 {
		t.Errorf("%d of an unselected pod's connections were touched", n)
	}
	sooner, err := w.StartConnects(selected(1), partner, 20*time.Millisecond)
	w.must(err)
	w.await(func() error {
		if n := counted(); n < 10 {
			return fmt.Errorf("%d of a selected pod's connections send their SYN again sooner", n)
		}
		return nil
	})
	sooner.Stop()
	asUsual.Stop()
	w.measured("sallyport_syn_retry_seconds 0.1")
}

func TestAnAgentThatCannotRetrySYNsSaysSoAndRunsOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lab.Options{Nodes: 1})
	_, err := w.StartAgent(1, "--syn-retry", "100ms", "--cgroup", "/proc")
	w.must(err)
	w.await(w.ready(lab.Agent, 1))
	s := w.status(lab.Agent, 1)
	if s.SYNRetry != nil || !slices.ContainsFunc(s.Problems, func(p gateway.Problem) bool {
		return p.Field == "--syn-retry" && strings.Contains(p.Message, "no cgroup v2 is mounted there; give the folder")
	}) {
		t.Errorf("status %+v, problems %v: want what is missing", s.SYNRetry, s.Problems)
	}
	w.measured("sallyport_syn_retry_seconds 0")
}

// measured demands a line of the first node's agent's metrics.
func (w *world) measured(line string) {
	w.t.Helper()
	_, body, err := w.Get(w.t.Context(), lab.Agent, 1, "/metrics")
	w.must(err)
	if !slices.Contains(strings.Split(string(body), "\n"), line) {
		w.t.Errorf("no line %q in\n%s", line, body)
	}
}
