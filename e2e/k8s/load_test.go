package k8s

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/sallyport/sallyport/e2e/cluster/traffic"
	"github.com/sallyport/sallyport/e2e/lab"
)

// load is the traffic of steered pods, one on each node, while something happens to the
// cluster: datagrams that the partner echoes, new connections, and one connection that
// lives on.
type load struct {
	w     *world
	app   app
	pods  map[int]pod // by node, also of one that is gone
	since time.Time
}

// load starts the traffic and waits until the partner sees all of it as the VIP.
func (w *world) load() *load {
	w.t.Helper()
	l := &load{w: w, pods: map[int]pod{}, app: w.deploy(app{name: "bank", to: partner, routes: "payments",
		echo: 5 * time.Millisecond, connects: 50 * time.Millisecond, stream: 5 * time.Millisecond})}
	w.first(l.app, asVIP)
	for _, p := range w.pods(l.app) {
		l.pods[p.node] = p
	}
	if want := w.everyNode(); !slices.Equal(slices.Sorted(maps.Keys(l.pods)), want) {
		w.t.Fatalf("the traffic comes from nodes %v, want %v", slices.Sorted(maps.Keys(l.pods)), want)
	}
	l.goesOn(w.everyNode()...)
	l.since = time.Now()
	return l
}

// goesOn awaits that what the pods on the nodes ask from now on is answered, whatever
// kind of traffic it is.
func (l *load) goesOn(nodes ...int) {
	l.w.t.Helper()
	since := time.Now()
	for _, j := range nodes {
		l.w.await(func() error {
			r, err := l.w.hear(l.pods[j], since)
			if err != nil {
				return err
			}
			for kind, t := range kinds(r) {
				if _, ok := t.NextReply(since); !ok {
					return fmt.Errorf("no %s of %s on n%d is answered (stream broken: %q)", kind, l.pods[j].name, j, r.Broken)
				}
			}
			return nil
		})
	}
}

// kept demands of the pods on the nodes that their connection lives and that the partner
// saw the VIP only. It logs the gaps.
func (l *load) kept(nodes ...int) {
	l.w.t.Helper()
	for _, j := range nodes {
		r := l.w.heardOf(l.pods[j], l.since)
		if r.Broken != "" {
			l.w.t.Errorf("the stream from n%d broke: %s", j, r.Broken)
		}
		for source := range r.Sources() {
			if source != theVIP {
				l.w.t.Errorf("the partner saw the pod on n%d as %s", j, source)
			}
		}
		l.w.t.Logf("from n%d in %s: echo gap %s, %d of %d lost; stream gap %s; %d new connections, failed: %v, slowest other %s", j,
			time.Since(l.since).Round(time.Second), r.Echo.LongestGap().Length().Round(time.Millisecond), r.Echo.Lost(), len(r.Echo.Exchanges),
			r.Stream.LongestGap().Length().Round(time.Millisecond), len(r.Connects.Exchanges), failures(r.Connects), r.Connects.Latency(1).Round(time.Millisecond))
	}
}

// untouched demands what kept does, and that no new connection failed.
func (l *load) untouched(nodes ...int) {
	l.w.t.Helper()
	l.kept(nodes...)
	for _, j := range nodes {
		r := l.w.heardOf(l.pods[j], l.since)
		if f := failures(r.Connects); len(f) > 0 {
			l.w.t.Errorf("new connections from n%d failed: %v", j, f)
		}
	}
}

// failures are why connections were given up, and how many.
func failures(t lab.Timeline) map[string]int {
	why := map[string]int{}
	for _, e := range t.Exchanges {
		if e.Err != nil {
			why[e.Err.Error()]++
		}
	}
	return why
}

func kinds(r traffic.Report) map[string]lab.Timeline {
	return map[string]lab.Timeline{"datagram": r.Echo, "new connection": r.Connects, "question": r.Stream}
}
