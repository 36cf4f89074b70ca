package e2e

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/audit"
	"github.com/sallyport/sallyport/e2e/lab"
)

// What is audited passes netfilter on gateways that have a fast path: the record has every packet. When the route is
// not audited any more its connections go beside, and when it is again they do not.
func TestWhatIsAuditedDoesNotGoBesideNetfilter(t *testing.T) {
	t.Parallel()
	for _, netfilter := range []string{"nftables", "iptables"} {
		t.Run(netfilter, func(t *testing.T) {
			t.Parallel()
			w := newAuditor(t, lab.Options{Netfilter: netfilter, Nodes: 2, GatewayNodes: alone.GatewayNodes, AgentArgs: fastPath, GatewayArgs: slices.Concat(alone.GatewayArgs, fastPath)},
				"c.jsonl", []string{"netfilter/nf_conntrack_acct=1", "netfilter/nf_conntrack_udp_timeout=3",
					"netfilter/nf_conntrack_udp_timeout_stream=3", "netfilter/nf_conntrack_tcp_timeout_time_wait=1"})
			pod := selected(2)
			w.seenEventually(pod, partner, theVIP)
			stream, u := w.startContent(pod), w.talk(pod, 21002)
			const least = 200
			var seen string
			for range least {
				seen = u.ask()
			}
			stream.goesOn()
			at, port := time.Now(), stream.source()
			stream.stop()
			w.must(stream.conn.Close())
			w.goesBesideNot(1)
			w.await(func() error { // looking makes the kernel remove what has expired
				out, err := w.Exec(lab.NodeName(1), "conntrack", "-L", "--zone", strconv.Itoa(gatewayZone), "-s", w.addrOf(pod).String())
				if err == nil && !strings.Contains(out, " 0 flow entries") {
					err = fmt.Errorf("connections that nobody uses are still there: %s", out)
				}
				return err
			})
			w.expect(at, portIn(t, seen), "udp", pod, func(r audit.Record) bool {
				return r.Event == audit.EndEvent && r.Counted && r.Sent.Packets >= least && r.Sent.Bytes == 29*r.Sent.Packets && // one may be asked twice
					r.Received.Packets == r.Sent.Packets && r.Received.Bytes == (29+uint64(len(seen)))*r.Received.Packets
			}, 1)
			carried := uint64(stream.sent.Load())
			w.expect(at, port, "tcp", pod, func(r audit.Record) bool {
				return r.Event == audit.EndEvent && r.Counted && r.Sent.Bytes > carried && r.Received.Bytes > carried
			}, 1)

			w.must(w.Manifests.WriteRoute("payments", payments))
			s := w.speaker(pod)
			w.speak(s, func() error {
				if f := w.besideAt(1); f.PacketsOut < 100 || f.PacketsIn < 100 {
					return fmt.Errorf("%+v went beside netfilter", f)
				}
				return nil
			})
			w.must(w.Manifests.WriteRoute("payments", audited))
			w.speak(s, func() error {
				if n := w.remembered(1, pod); n > 0 {
					return fmt.Errorf("%d connections are still remembered", n)
				}
				return nil
			})
			before, sent := w.besideAt(1), 0
			w.speak(s, func() error {
				if sent++; sent < 20 {
					return errors.New("not yet enough")
				}
				return nil
			})
			if now := w.besideAt(1); now.PacketsOut != before.PacketsOut || now.PacketsIn != before.PacketsIn {
				t.Errorf("%+v of an audited route went beside netfilter, before %+v", now, before)
			}
		})
	}
}

// goesBesideNot demands that nothing went beside netfilter on a gateway that can have it do so.
func (w *world) goesBesideNot(j int) {
	w.t.Helper()
	if f := w.besideAt(j); f.PacketsOut+f.PacketsIn > 0 || f.Flows > 0 {
		w.t.Errorf("%+v went beside netfilter", f)
	}
}
