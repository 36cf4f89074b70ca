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
}

func TestAnAgentThatCannotRetrySYNsSaysSoAndRunsOn(t *testing.T) {
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
}
