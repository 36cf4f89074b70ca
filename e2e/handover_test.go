package e2e

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/e2e/lab"
)

// unhurried gateways take no election from each other on a busy machine: a test of what
// a hand-over loses is to have hand-overs only.
var unhurried = []string{"--timing", "wan"}

// handOver runs the command on a node and gives what it said.
func (w *world) handOver(j int, args ...string) (string, error) {
	out, err := w.Exec(lab.NodeName(j), binary, append([]string{"handover", "--vip", theVIP.String()}, args...)...)
	if err != nil {
		out += err.Error()
	}
	return strings.TrimSpace(out), err
}

// load is what must go on over a hand-over: from each node's pod UDP echoes, a connection
// that asks and one in which the partner talks.
type load struct {
	w       *world
	echo    []*lab.Echo
	streams []*lab.Stream
}

func (w *world) startLoad(nodes ...int) *load {
	w.t.Helper()
	l := &load{w: w}
	for _, j := range nodes {
		w.seenEventually(selected(j), partner, theVIP)
		e, err := w.StartEcho(selected(j), partner, 5*time.Millisecond)
		w.must(err)
		asking, err := w.StartStream(selected(j), partner, 5*time.Millisecond)
		w.must(err)
		pushed, err := w.StartListening(selected(j), partner)
		w.must(err)
		l.echo, l.streams = append(l.echo, e), append(l.streams, asking, pushed)
	}
	l.flows()
	return l
}

// flows waits until everything has an answer to what was asked after the call.
func (l *load) flows() {
	l.w.t.Helper()
	now := time.Now()
	fresh := func(report func() lab.Timeline) {
		l.w.t.Helper()
		l.w.await(func() error {
			if _, ok := report().NextReply(now); !ok {
				return errors.New("no answer")
			}
			return nil
		})
	}
	for _, e := range l.echo {
		fresh(e.Report)
	}
	for _, s := range l.streams {
		fresh(s.Report)
	}
}

// kept ends the load and demands that all of it was seen as the VIP, that no datagram was lost, no
// connection broke, and no two nodes answered for the VIP.
func (l *load) kept() {
	l.w.t.Helper()
	for i, e := range l.echo {
		report := e.Stop()
		l.w.t.Logf("echo %d: %d asked, %d lost, longest gap %v", i, len(report.Exchanges), report.Lost(), report.LongestGap().Length().Round(time.Millisecond))
		if lost := report.Lost(); lost > 0 {
			l.w.t.Errorf("echo %d: %d datagrams were lost", i, lost)
		}
		for source := range report.Sources() {
			if source != theVIP {
				l.w.t.Errorf("echo %d was seen from %s", i, source)
			}
		}
	}
	for i, s := range l.streams {
		report := s.Stop()
		l.w.t.Logf("stream %d: longest stall %v", i, report.LongestGap().Length().Round(time.Millisecond))
		if err := s.Broken(); err != nil {
			l.w.t.Errorf("connection %d broke: %v", i, err)
		}
	}
	l.w.noLeak()
	l.w.oneHolder()
}

// TestHandOversLoseNothing: one after the other, under load, to a gateway that is named,
// by its node, or to any.
func TestHandOversLoseNothing(t *testing.T) {
	w := start(t, lab.Options{GatewayArgs: unhurried})
	l, before := w.startLoad(1, 2, 3), 0
	for n := range 12 {
		holder := w.holder()
		// Never back at once: that would look as if two held.
		heir := w.Others(holder)[0]
		if heir == before {
			heir = w.Others(holder)[1]
		}
		before = holder
		args := []string{"--to", lab.NodeName(heir)}
		if n == 0 {
			args, heir = nil, 0
		}
		said, err := w.handOver(holder, args...)
		if err != nil {
			t.Fatalf("%v: %s\n%s", err, said, w.LogTails(20))
		}
		t.Log(said)
		now := w.awaitHolder(w.Others(holder)...)
		if args != nil && now != heir {
			t.Errorf("n%d holds, n%d was to", now, heir)
		}
		if !strings.Contains(said, fmt.Sprintf("%s: from n%d to n", theVIP, holder)) {
			t.Errorf("it said %q", said)
		}
		l.flows()
		w.ping(selected(now), "4711")
	}
	l.kept()
}

// TestARollingRestartLosesNothing: each gateway in turn is ended by SIGTERM and started
// again, as an upgrade or the drain of one node after another does.
func TestARollingRestartLosesNothing(t *testing.T) {
	// A gateway that was started again takes no VIP for a lease.
	w := start(t, lab.Options{GatewayArgs: append([]string{"--handover-timeout", "1m"}, unhurried...)})
	l := w.startLoad(1, 2, 3)
	moved := 0
	for _, j := range w.Options.GatewayNodes {
		holder := w.holder()
		w.inStep(holder, w.Others(holder)...)
		w.must(w.gateway(j).Stop())
		if j == holder {
			moved++
			w.awaitHolder(w.Others(j)...)
		}
		l.flows()
		w.restartGateway(j)
	}
	if moved == 0 {
		t.Error("no holder was restarted")
	}
	l.kept()
}

// TestWithoutASuccessorTheVIPIsReleased, in bounded time, and the log says so.
func TestWithoutASuccessorTheVIPIsReleased(t *testing.T) {
	t.Parallel()
	w := start(t, lab.Options{TwoNetworks: true, GatewayArgs: append([]string{"--handover-timeout", "1s"}, unhurried...)})
	holder := w.holder()
	for _, j := range w.Others(holder) {
		w.must(w.CutOutside(j))
		w.await(func() error {
			if v := w.status(lab.Gateway, j).VIPs[0]; v.Barred == "" {
				return fmt.Errorf("n%d would still hold", j)
			}
			return nil
		})
	}
	said, err := w.handOver(holder)
	if err == nil || !strings.Contains(said, "its link is down") || w.holder() != holder {
		t.Errorf("with no other link up: %v, %s", err, said)
	}
	w.must(w.gateway(holder).Stop())
	if log := w.LogTails(40); !strings.Contains(log, "no successor, the VIP is released") {
		t.Errorf("the log does not say it:\n%s", log)
	}
	w.must(w.Heal())
	w.awaitHolder(w.Others(holder)...)
	w.seenEventually(selected(holder), partner, theVIP)
	w.noLeak()
	w.oneHolder()
}

// TestAHandOverIsRefused with the cause, and the VIP stays.
func TestAHandOverIsRefused(t *testing.T) {
	t.Parallel()
	w := start(t, lab.Options{GatewayArgs: append([]string{"--handover-timeout", "1s"}, unhurried...)})
	holder := w.holder()
	other, third := w.Others(holder)[0], w.Others(holder)[1]
	w.together(holder, other, third) // or one may not know yet who holds
	refused := func(on int, want string, args ...string) {
		t.Helper()
		if said, err := w.handOver(on, args...); err == nil || !strings.Contains(said, want) {
			t.Errorf("on n%d %q: %v, %q, want %q", on, args, err, said, want)
		}
	}
	refused(other, fmt.Sprintf("n%d holds it", holder))
	refused(holder, "no gateway is called n9", "--to", "n9")
	refused(holder, "holds it already", "--to", lab.NodeName(holder))
	if said, err := w.Exec(lab.NodeName(holder), binary, "handover", "--vip", "192.0.2.99"); err == nil || !strings.Contains(said+err.Error(), "none of this gateway's VIPs") {
		t.Errorf("of an unknown VIP: %v %s", err, said)
	}
	// Who asks from elsewhere, or by way of a browser, is not heard.
	if said, err := w.Exec(lab.NodeName(holder), "curl", "-s", "-X", "POST", "http://"+lab.GatewayHTTP+"/handover?vip="+theVIP.String()); err == nil && !strings.Contains(said, "run sallyport handover") {
		t.Errorf("without the header: %s", said)
	}
	w.must(w.gateway(third).Pause())
	refused(holder, "would not hold it", "--to", lab.NodeName(third))
	w.must(w.gateway(third).Continue())
	if now := w.holder(); now != holder {
		t.Errorf("n%d holds, n%d did", now, holder)
	}
}
