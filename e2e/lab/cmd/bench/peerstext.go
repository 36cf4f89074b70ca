package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/e2e/lab"
	"github.com/sallyport/sallyport/flows/conntrack"
)

func peerNames() (names []string) {
	for _, p := range peers {
		names = append(names, p.name)
	}
	return names
}

func blowNames() (names []string) {
	for _, f := range blows {
		names = append(names, f.name)
	}
	return names
}

// among refuses an --only that names nothing of the section.
func (b *bench) among(section string, names ...[]string) error {
	all := slices.Concat(names...)
	for _, name := range b.only {
		if !slices.Contains(all, name) {
			return fmt.Errorf("--only %s: %s has %s", name, section, strings.Join(all, ", "))
		}
	}
	return nil
}

// wantsOf is wants where --only may name variants of several kinds: of a kind of which it names
// none, all are wanted.
func (b *bench) wantsOf(name string, kind []string) bool {
	return slices.Contains(b.only, name) || !slices.ContainsFunc(b.only, func(n string) bool { return slices.Contains(kind, n) })
}

// replicated waits until the kernels of the nodes have the connections.
func (w *world) replicated(nodes []int, streams ...*probed) error {
	for _, j := range nodes {
		ns, err := w.Namespace(lab.NodeName(j))
		if err != nil {
			return err
		}
		err = lab.Await(patience, func() error {
			missing := len(streams)
			err := ns.Do(func() error {
				_, err := conntrack.Dump(conntrack.IPv4, conntrack.Mark{}, func(e *conntrack.Entry) bool {
					if e.Original.Protocol == unix.IPPROTO_TCP && e.Reply.Dst == w.Options.VIPs[0] && slices.ContainsFunc(streams, func(s *probed) bool {
						return s.Local().Addr() == e.Original.Src && s.Local().Port() == e.Original.SrcPort
					}) {
						missing--
					}
					return false
				})
				return err
			})
			if err == nil && missing > 0 {
				err = errors.New("a connection is not replicated")
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("n%d: %w", j, err)
		}
	}
	return nil
}

// Why sallyport is behind where it is: one reason for each fault, of gaps and of stalls.
var whyBehind = map[string]string{
	"crash":   "another may hold only when the lease has ended for sure, 100 ms in `default` and 30 ms in `fast`; keepalived at 10 ms calls whoever was silent for 30 ms dead, and owes nobody a proof",
	"silence": "as with a crash",
	"stop":    "nothing is translated by two hosts at a time: packets wait in the old holder's queue until the heir is elected, with all connections handed over before",
	"pause":   "keepalived's dead master goes on forwarding beside the new one, and both answer for the VIP until somebody takes the address away; the fence ends ours before another may begin, which is the gap",
	"kill":    "as with `SIGSTOP`",
}

// finer than the clients' pace no difference is told.
const finest = 0.005

func peersText(results map[cell]*suffered) string {
	rows := [][]string{{"median / p95, ms", "", "UDP echo", "new connections", "request and response", "server push", "connections lost", "two owners"}}
	var behind []string
	for _, f := range blows {
		for _, p := range peers {
			r := results[cell{p.name, f.name}]
			if r == nil {
				continue
			}
			rows = append(rows, []string{f.title, p.title, r.echo.millis(), r.connect.millis(), r.asking.millis(), r.pushed.millis(),
				fmt.Sprintf("%d of %d", r.lost, r.streams), fmt.Sprintf("%d of %d", r.both, len(r.echo))})
		}
		if worse := behindIn(f, results); len(worse) > 0 {
			behind = append(behind, fmt.Sprintf("- %s (%s): %s.", f.title, strings.Join(worse, "; "), whyBehind[f.name]))
		}
	}
	text := `## Beside keepalived and conntrackd

The same faults to the holder, one after the other in a lab of four nodes, three of them gateways, with the contenders in turn,
trial by trial. A pod on the fourth node asks a UDP echo every 5 ms, opens a TCP connection every 5 ms, has one in which it asks every
5 ms, and one in which the partner talks every 5 ms. Each figure is the longest time without an answer, of TCP with
its own retransmission timer, 200 ms at least. A connection is lost that broke or had no answer for 10 s. "Two owners" are trials in which two hosts were
proven to answer ARP for the VIP, by one's answer between two of the other, from the fault until all was whole again. In a silent death the holder's
link drops every frame and keeps its carrier, and its programs run on; "SIGSTOP" and "kill -9" strike the daemon alone.

keepalived is Debian's package with VRRP version 3 and priorities 254, 170 and 86; at 10 ms with ` + "`vrrp_rt_priority 50` and `vrrp_rlimit_rttime 2000000`" + `. conntrackd
replicates in the mode NOTRACK by multicast, without an external cache, and its primary-backup script is called at each change. Their packets take
the design's path as made by hand, without a zone, for conntrackd replicates none; tunnel to the VIP, SNAT on every gateway.

` + instrument + `

` + table(rows)
	for _, program := range []string{"keepalived", "conntrackd"} {
		if !have(program) {
			text += "\n" + program + " was not installed: what needs it is not compared. On Debian: apt-get install " + program + "\n"
		}
	}
	text += "\n" + peersVerdicts(results)
	if len(behind) > 0 {
		text += "\nWhere Sallyport is behind by more than the clients' 5 ms, and why:\n\n" + strings.Join(behind, "\n") + "\n"
	}
	return text
}

// behindIn are the figures of a fault in which a keepalived's median is better than that
// of ours which is nearest to it.
func behindIn(f blow, results map[cell]*suffered) (worse []string) {
	figures := []struct {
		name string
		of   func(*suffered) trials
	}{
		{"echo", func(r *suffered) trials { return r.echo }}, {"connections", func(r *suffered) trials { return r.connect }},
		{"request and response", func(r *suffered) trials { return r.asking }}, {"push", func(r *suffered) trials { return r.pushed }},
	}
	for _, mine := range []string{"default", "fast"} {
		for _, theirs := range peers[2:] {
			a, b := results[cell{mine, f.name}], results[cell{theirs.name, f.name}]
			if a == nil || b == nil {
				continue
			}
			for _, figure := range figures {
				if x, y := figure.of(a), figure.of(b); len(x) > 0 && len(y) > 0 && x.median() > y.median()+finest {
					worse = append(worse, fmt.Sprintf("%s, %s %.0f, %s %.0f", figure.name, mine, 1e3*x.median(), theirs.name, 1e3*y.median()))
				}
			}
		}
	}
	return worse
}

func peersVerdicts(results map[cell]*suffered) (text string) {
	atMost := func(what string, value, target float64) {
		text += verdict(what, value, target, value <= target, "%.0f")
	}
	for _, goal := range []struct {
		name        string
		median, p95 float64
	}{{"default", 110, 140}, {"fast", 37, 46}} {
		if r := results[cell{goal.name, "crash"}]; r != nil {
			atMost(goal.name+", crash, median of the echo, ms", 1e3*r.echo.median(), goal.median)
			atMost(goal.name+", crash, its p95, ms", 1e3*r.echo.quantile(.95), goal.p95)
		}
		if r := results[cell{goal.name, "stop"}]; r != nil {
			stall := max(r.asking.quantile(1), r.pushed.quantile(1))
			atMost(goal.name+", graceful stop, longest stall of a stream, ms", 1e3*stall, 20)
		}
		lost, both, seen := 0, 0, false
		for _, f := range blows {
			if r := results[cell{goal.name, f.name}]; r != nil {
				lost, both, seen = lost+r.lost, both+r.both, true
			}
		}
		if seen {
			atMost(goal.name+", connections lost", float64(lost), 0)
			atMost(goal.name+", trials with two owners", float64(both), 0)
		}
	}
	return text
}
