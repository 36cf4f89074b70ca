// Package e2e proves, with real packets between the namespaces of a lab, what
// Sallyport promises. Each test says in its name which promise. Where a failover, a hand-over
// or the fence is looked at, a test has the machine to itself; where only what happens
// counts, and not when, it is parallel, with gateways that are unhurried.
package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/sallyport/sallyport/e2e/hang"
	"github.com/sallyport/sallyport/e2e/lab"
	"github.com/sallyport/sallyport/gateway/host"
)

var (
	binary  string
	theVIP  = netip.MustParseAddr("192.0.2.10")
	partner = lab.PartnerAddr
)

func TestMain(m *testing.M) {
	hang.Main()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if os.Getenv(stepClockEnv) != "" {
		if err := stepClock(); err != nil {
			fmt.Fprintln(os.Stderr, "step the clock:", err)
			return 1
		}
		return 0
	}
	if binary = os.Getenv("SALLYPORT_BIN"); binary == "" {
		dir, err := os.MkdirTemp("", "sallyport-e2e")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		binary = filepath.Join(dir, "sallyport")
		build := exec.Command("go", "build", "-o", binary, "github.com/sallyport/sallyport/cmd/sallyport")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build sallyport: %v: %s", err, out)
			return 1
		}
	}
	return m.Run()
}

const payments = `
vip: 192.0.2.10
namespaceSelector: {}
destinations:
- cidr: 203.0.113.5/32
`

// patience is how long a change may take before the test gives up; what is measured
// is in the benchmarks.
const patience = 20 * time.Second

// world is a lab with everything running: pod-j-1 is selected, pod-j-2 is not.
type world struct {
	*lab.Lab
	t   *testing.T
	arp *lab.ARPWatch
}

func newWorld(t *testing.T, o lab.Options) *world {
	t.Helper()
	o.Prefix, o.Binary = lab.TestPrefix(t, "spe"), binary
	w := &world{Lab: lab.Test(t, o), t: t}
	w.must(w.Manifests.WriteRoute("payments", payments))
	for j := 1; j <= w.Options.Nodes; j++ {
		w.must(w.Annotate(selected(j), "payments"))
	}
	return w
}

func start(t *testing.T, o lab.Options) *world {
	t.Helper()
	w := newWorld(t, o)
	w.begin()
	return w
}

// begin starts everything.
func (w *world) begin() {
	w.t.Helper()
	w.must(w.StartAll())
	w.awaitReady()
	var err error
	w.arp, err = w.WatchARP(5 * time.Millisecond)
	w.must(err)
}

func selected(j int) string   { return fmt.Sprintf("pod-%d-1", j) }
func unselected(j int) string { return fmt.Sprintf("pod-%d-2", j) }

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) await(condition func() error) {
	w.t.Helper()
	w.must(lab.Await(patience, condition))
}

func (w *world) awaitReady() {
	w.t.Helper()
	for _, j := range w.Options.GatewayNodes {
		w.await(w.ready(lab.Gateway, j))
	}
	for j := 1; j <= w.Options.Nodes; j++ {
		w.await(w.ready(lab.Agent, j))
	}
}

func (w *world) ready(role lab.Role, j int) func() error {
	return func() error {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		code, body, err := w.Get(ctx, role, j, "/readyz")
		if err == nil && code != http.StatusOK {
			err = fmt.Errorf("%s on n%d: %s", role, j, body)
		}
		return err
	}
}

func (w *world) status(role lab.Role, j int) host.Status {
	w.t.Helper()
	var s host.Status
	w.await(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		_, body, err := w.Get(ctx, role, j, "/status")
		if err != nil {
			return err
		}
		return json.Unmarshal(body, &s)
	})
	return s
}

// awaitHolder waits until one of the nodes says that it holds the VIP, and gives it.
func (w *world) awaitHolder(among ...int) int {
	w.t.Helper()
	holder := 0
	w.await(func() error {
		for _, j := range among {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			_, body, err := w.Get(ctx, lab.Gateway, j, "/status")
			cancel()
			var s host.Status
			if err != nil || json.Unmarshal(body, &s) != nil {
				continue
			}
			if len(s.VIPs) > 0 && s.VIPs[0].Held {
				holder = j
				return nil
			}
		}
		return fmt.Errorf("nobody among %v holds the VIP", among)
	})
	return holder
}

func (w *world) holder() int { w.t.Helper(); return w.awaitHolder(w.Options.GatewayNodes...) }

// sees demands that the partner sees the pod as the address.
func (w *world) sees(pod string, to, as netip.Addr) {
	w.t.Helper()
	got, err := w.SeenAs(pod, to, 3*time.Second)
	w.must(err)
	if got != as {
		w.t.Errorf("%s is seen at %s as %s, want %s", pod, to, got, as)
	}
}

func (w *world) seenEventually(pod string, to, as netip.Addr) {
	w.t.Helper()
	w.await(func() error {
		got, err := w.SeenAs(pod, to, time.Second)
		if err == nil && got != as {
			err = fmt.Errorf("%s is seen at %s as %s, want %s", pod, to, got, as)
		}
		return err
	})
}

// noLeak demands that the partner refused nothing: no packet came with a source
// other than the VIP.
func (w *world) noLeak() {
	w.t.Helper()
	refused, err := w.Partner.Refused()
	w.must(err)
	if len(refused) > 0 {
		w.t.Errorf("packets with a wrong source at the partner: %+v", refused)
	}
}

// oneHolder demands that no two nodes were heard to answer for the VIP at a time.
func (w *world) oneHolder() {
	w.t.Helper()
	if v := w.arp.Violations(); len(v) > 0 {
		w.t.Errorf("two holders on the partner's segment: %v (%d times)", v[0], len(v))
	}
}

// traffic is what must go on: from one selected pod of each given node.
type traffic struct {
	echo     []*lab.Echo
	connects []*lab.Connects
	streams  []*lab.Stream
}

func (w *world) startTraffic(nodes ...int) *traffic {
	w.t.Helper()
	tr := &traffic{}
	for _, j := range nodes {
		e, err := w.StartEcho(selected(j), partner, 5*time.Millisecond)
		w.must(err)
		c, err := w.StartConnects(selected(j), partner, 5*time.Millisecond)
		w.must(err)
		s, err := w.StartStream(selected(j), partner, 5*time.Millisecond)
		w.must(err)
		tr.echo, tr.connects, tr.streams = append(tr.echo, e), append(tr.connects, c), append(tr.streams, s)
	}
	w.flowsAgain(tr, time.Now())
	return tr
}

// flowsAgain waits until every client has had an answer to something asked after
// the moment.
func (w *world) flowsAgain(tr *traffic, after time.Time) {
	w.t.Helper()
	type reporter interface{ Report() lab.Timeline }
	var all []reporter
	for i := range tr.echo {
		all = append(all, tr.echo[i], tr.connects[i])
	}
	for i, r := range all {
		w.await(func() error {
			if _, ok := r.Report().NextReply(after); !ok {
				return fmt.Errorf("client %d has no answer", i)
			}
			return nil
		})
	}
	for _, s := range tr.streams {
		w.await(func() error {
			if at := s.Report().Answers(); len(at) == 0 || at[len(at)-1].Before(after) {
				return fmt.Errorf("the stream from %s has no answer, broken: %v", s.Local(), s.Broken())
			}
			return nil
		})
	}
}

// stop ends the traffic and demands that all of it was seen as the VIP and that no
// established connection broke. It logs the gaps.
func (w *world) stop(tr *traffic) {
	w.t.Helper()
	for i := range tr.echo {
		echo, connects, stream := tr.echo[i].Stop(), tr.connects[i].Stop(), tr.streams[i].Stop()
		w.t.Logf("client %d: longest gap of echoes %v, %d of %d lost; connections %d, none for %v; stream's longest stall %v", i,
			echo.LongestGap().Length().Round(time.Millisecond), echo.Lost(), len(echo.Exchanges), len(connects.Exchanges),
			connects.LongestGap().Length().Round(time.Millisecond), stream.LongestGap().Length().Round(time.Millisecond))
		for what, seen := range map[string]map[netip.Addr]int{"echo": echo.Sources(), "connections": connects.Sources()} {
			for source := range seen {
				if source != theVIP {
					w.t.Errorf("%s of client %d seen from %s", what, i, source)
				}
			}
		}
		if err := tr.streams[i].Broken(); err != nil {
			w.t.Errorf("established connection of client %d broke: %v", i, err)
		}
	}
}

func others(all []int, without int) []int {
	return slices.DeleteFunc(slices.Clone(all), func(j int) bool { return j == without })
}
