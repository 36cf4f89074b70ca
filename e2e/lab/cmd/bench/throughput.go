package main

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/sallyport/sallyport/e2e/lab"
)

const (
	manyPods   = 5000
	manyRoutes = 200
)

// way is how packets get from pod to partner.
type way struct {
	name, title string
	suffix      string // of the lab's prefix
	options     lab.Options
	make        func(*world) error
	aimed       bool   // at 0.95 of the hand-made
	beside      string // with 1 pod a node, for what the crowd costs
}

const (
	plain    = "plain"
	handMade = "hand-made"
	idle     = "one" // the way whose programs run beside those that have none
)

func crowded(w *world) error {
	err := errors.Join(w.AddFakeRoutes(manyRoutes),
		w.AddFakePods(manyPods, func(i int) string { return fmt.Sprintf("fake-%d", i%manyRoutes) }))
	return errors.Join(err, w.start())
}

var fastPath = lab.Options{AgentArgs: []string{"--fast-path"}, GatewayArgs: []string{"--fast-path"}}

var ways = []way{
	{name: plain, title: "plain routed forwarding", suffix: "p", make: func(w *world) error { return w.PlainForwarding() }},
	{name: handMade, title: "hand-made VXLAN, one SNAT rule", suffix: "h", make: func(w *world) error { return w.HandMadeTunnel(1) }},
	{name: idle, title: "sallyport, 1 pod a node", suffix: "o", make: (*world).start, aimed: true},
	{name: "fast", title: "sallyport, `--fast-path`", suffix: "f", options: fastPath, make: (*world).start, aimed: true},
	{name: "many", title: "sallyport, 5,000 pods, 200 routes", suffix: "m", make: crowded, aimed: true, beside: idle},
	{name: "fast-many", title: "sallyport, 5,000 pods, 200 routes, `--fast-path`", suffix: "g", options: fastPath, make: crowded, aimed: true, beside: "fast"},
	{name: "iptables", title: "sallyport, 5,000 pods, 200 routes, `--netfilter iptables`", suffix: "i", options: lab.Options{Netfilter: "iptables"}, make: crowded, beside: idle},
}

// figures are what is measured of a way, round by round.
type figures struct{ bulk, paced, datagrams, connections, p50, p99 trials }

func (b *bench) throughput(ctx context.Context) (_ string, err error) {
	worlds := map[string]*world{}
	defer func() {
		for _, w := range worlds {
			err = errors.Join(err, w.Close())
		}
	}()
	for _, v := range ways {
		if !b.wants(v.name) {
			continue
		}
		progress("throughput: making %s", v.title)
		w, err := b.up(v.suffix, v.options)
		if err != nil {
			return "", err
		}
		worlds[v.name] = w
		if err := v.make(w); err != nil {
			return "", fmt.Errorf("%s: %w\n%s", v.title, err, w.LogTails(10))
		}
		if err := w.rest(); err != nil {
			return "", err
		}
	}
	results := map[string]*figures{}
	for n := range b.trials {
		for i := range ways {
			v := ways[(i+n)%len(ways)] // nobody always comes first
			w := worlds[v.name]
			if w == nil {
				continue
			}
			if results[v.name] == nil {
				results[v.name] = &figures{}
			}
			r := results[v.name]
			if err := beside(ctx, w, worlds[idle], func() error { return w.round(ctx, r) }); err != nil {
				return "", fmt.Errorf("round %d of %s: %w\n%s", n+1, v.title, err, w.LogTails(10))
			}
			progress("throughput %d/%d %-9s %5.2f and %5.2f Gbit/s, %6.0f packets/s, %5.0f connections/s, HTTP %4.0f and %4.0f µs",
				n+1, b.trials, v.name, r.bulk[n]/1e9, r.paced[n]/1e9, r.datagrams[n], r.connections[n], 1e6*r.p50[n], 1e6*r.p99[n])
		}
	}
	return throughputText(results), nil
}

// beside measures a way that has no programs of ours while those of another lab run
// idle: three nodes' heartbeats on one machine take a share of its processors that is no
// cost of a packet's path.
func beside(ctx context.Context, w, other *world, measure func() error) error {
	if len(w.programs()) > 0 || other == nil {
		return measure()
	}
	if _, err := other.wake(ctx); err != nil {
		return err
	}
	return errors.Join(measure(), other.rest())
}

// rest pauses the lab's programs, so that only what is measured runs.
func (w *world) rest() error {
	var errs []error
	for _, p := range w.programs() {
		errs = append(errs, p.Pause())
	}
	return errors.Join(errs...)
}

// wake lets them go on, and gives a pod that is not on the gateway's node.
func (w *world) wake(ctx context.Context) (from string, err error) {
	programs := w.programs()
	if len(programs) == 0 {
		return pod(2), nil
	}
	for _, p := range programs {
		err = errors.Join(err, p.Continue())
	}
	if err == nil {
		// The first looks may still show the election before the pause.
		err = errors.Join(wait(ctx, 500*time.Millisecond), w.flows())
	}
	if err != nil {
		return "", err
	}
	holder, err := w.holder()
	if err != nil {
		return "", err
	}
	return pod(w.Others(holder)[0]), w.seen(pod(w.Others(holder)[0]))
}

func withControl(congestion string) func(*world, string) (float64, error) {
	return func(w *world, from string) (float64, error) { return bulk(w, from, congestion) }
}

// round measures everything once.
func (w *world) round(ctx context.Context, r *figures) (err error) {
	from, err := w.wake(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.rest()) }()
	debug.FreeOSMemory() // so that a collection does not fall into the trial
	for _, m := range []struct {
		run func(*world, string) (float64, error)
		to  *trials
	}{{withControl(cubic), &r.bulk}, {withControl(bbr), &r.paced}, {datagrams, &r.datagrams}, {connections, &r.connections}} {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := w.forgetFlows(); err != nil {
			return err
		}
		value, err := m.run(w, from)
		if err != nil {
			return err
		}
		*m.to = append(*m.to, value)
	}
	took, err := requests(ctx, w, from)
	if err != nil {
		return err
	}
	r.p50, r.p99 = append(r.p50, took.median()), append(r.p99, took.quantile(.99))
	return nil
}

// forgetFlows empties the connection tables: ten thousand dead entries of the trial
// before would make the next one's lookups slower.
func (w *world) forgetFlows() error {
	for j := 1; j <= w.Options.Nodes; j++ {
		ns, err := w.Namespace(lab.NodeName(j))
		if err != nil {
			return err
		}
		if err := ns.Do(func() error { return netlink.ConntrackTableFlush(netlink.ConntrackTable) }); err != nil {
			return fmt.Errorf("flush the connection table of %s: %w", lab.NodeName(j), err)
		}
	}
	return nil
}

func throughputText(results map[string]*figures) string {
	kinds := []struct {
		title, unit, format string
		scale               float64
		of                  func(*figures) trials
		more                bool // is better
	}{
		{"bulk TCP, CUBIC", "Gbit/s", "%.2f", 1e-9, func(f *figures) trials { return f.bulk }, true},
		{"bulk TCP, BBR", "Gbit/s", "%.2f", 1e-9, func(f *figures) trials { return f.paced }, true},
		{"64-byte datagrams received", "1,000/s", "%.1f", 1e-3, func(f *figures) trials { return f.datagrams }, true},
		{"new TCP connections", "1,000/s", "%.2f", 1e-3, func(f *figures) trials { return f.connections }, true},
		{"HTTP latency p50", "µs", "%.0f", 1e6, func(f *figures) trials { return f.p50 }, false},
		{"HTTP latency p99", "µs", "%.0f", 1e6, func(f *figures) trials { return f.p99 }, false},
	}
	text := fmt.Sprintf(`## Throughput and latency

From a pod on a node that is not the gateway to the partner, %v a trial, the ways interleaved round by round. Always
one lab's programs run, three gateways and three agents: beside the ways that have none, those of an idle lab. Generators and servers are the same for every way. "plain" forwards with the
pod's own address, no translation and no tunnel; "hand-made" is an ordinary VXLAN to one gateway with one SNAT rule on
it. Ratios are medians of the rounds' ratios. CUBIC sends as much as processors and windows let it; BBR spaces its packets out by what it measured of the path, timers included.

`, trialTime)
	rows := [][]string{{"median / p95", "way", "", "to plain", "to hand-made"}}
	var verdicts string
	for _, k := range kinds {
		for _, v := range ways {
			r := results[v.name]
			if r == nil {
				continue
			}
			values := k.of(r)
			bad := values.quantile(.95)
			if k.more {
				bad = values.reached()
			}
			row := []string{k.title + ", " + k.unit, v.title, fmt.Sprintf(k.format+" / "+k.format, values.median()*k.scale, bad*k.scale)}
			for _, base := range []string{plain, handMade} {
				ratio := "-"
				if results[base] != nil && v.name != base {
					ratio = fmt.Sprintf("%.2f", values.against(k.of(results[base])).median())
				}
				row = append(row, ratio)
			}
			rows = append(rows, row)
			if results[handMade] != nil && v.aimed {
				ratio := values.against(k.of(results[handMade])).median()
				what := fmt.Sprintf("%s, %s, against hand-made", k.title, v.title)
				if k.more {
					verdicts += verdict(what, ratio, .95, ratio >= .95, "%.2f")
				} else {
					verdicts += verdict(what, ratio, 1/.95, ratio <= 1/.95, "%.2f")
				}
			}
		}
	}
	return text + table(rows) + "\n" + verdicts + crowdCost(results)
}

// crowdCost is what many pods and routes cost beside one.
func crowdCost(results map[string]*figures) (text string) {
	for _, v := range ways {
		if r, one := results[v.name], results[v.beside]; r != nil && one != nil {
			text += fmt.Sprintf("\n%s, beside the same with 1 pod a node (%s): bulk %.2f, datagrams %.2f, connections %.2f, HTTP p50 %.2f.\n",
				v.title, v.beside, r.bulk.against(one.bulk).median(), r.datagrams.against(one.datagrams).median(),
				r.connections.against(one.connections).median(), r.p50.against(one.p50).median())
		}
	}
	return text
}
