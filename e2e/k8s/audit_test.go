package k8s

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport/sallyport/doctor"
	"github.com/sallyport/sallyport/e2e/lab"
)

// logged has the gateways keep an audit log.
const logged = "gateway.audit.output=file"

// onRecord is what a line says that an auditor asks for.
type onRecord struct {
	Namespace, Pod, Node, Source, Route string
	carried
}

// carried is what the kernel counted of a connection; nil: it did not.
type carried struct {
	PacketsSent, PacketsReceived, BytesSent, BytesReceived *uint64
	TakenOver                                              bool
}

// counted tells whether all is there, of a whole connection.
func (c carried) counted() bool {
	return c.PacketsSent != nil && c.PacketsReceived != nil && c.BytesSent != nil && c.BytesReceived != nil && !c.TakenOver
}

// plausible are the counters of a TCP connection that is greeted and then reset: SYN, ACK
// and RST one way, SYN and greeting the other, of 40 bytes and more.
func (c carried) plausible() bool {
	way := func(least, packets, bytes uint64) bool {
		return packets >= least && packets < 20 && bytes > 40*packets && bytes < 100*packets
	}
	return way(3, *c.PacketsSent, *c.BytesSent) && way(2, *c.PacketsReceived, *c.BytesReceived)
}

// recorded has the route's connections recorded, and demands that who knows a port of the
// VIP and a time learns which of the app's pods it was, and from the doctor why the bytes
// are unknown: the nodes do not count. Who does what the doctor says has them.
func (w *world) recorded(a app) {
	w.t.Helper()
	w.kubectl("patch", "egressroute", "payments", "--type", "merge", "-p", `{"spec":{"audit":true}}`)
	w.ask(nothing, func(r doctor.Report) error {
		var errs []error
		for _, j := range w.everyNode() {
			errs = append(errs, finding{doctor.Warning, "accounting", lab.NodeName(j), "sysctl net.netfilter.nf_conntrack_acct", "the audit of payments has no packets and bytes"}.told(r))
		}
		return errors.Join(errs...)
	})
	w.sysctl("nf_conntrack_acct=1", "nf_conntrack_tcp_timeout_close=1")
	w.ask(nothing, w.well)
	for _, p := range w.pods(a) {
		var answered lab.Exchange
		choose := func() {
			since := time.Now()
			w.await(func() error {
				r, err := w.hear(p, since)
				if err != nil {
					return err
				}
				i := slices.IndexFunc(r.Connects.Exchanges, func(e lab.Exchange) bool { return e.Sent.After(since) && !e.Answered.IsZero() })
				if i < 0 {
					return fmt.Errorf("no connection of %s is answered", p.name)
				}
				answered = r.Connects.Exchanges[i]
				return nil
			})
		}
		choose()
		w.await(func() error {
			found, err := w.who(answered)
			if err != nil {
				return err
			}
			want := onRecord{"default", p.name, lab.NodeName(p.node), p.addr.String(), "payments", carried{}}
			if len(found) == 1 {
				want.carried = found[0].carried
			}
			switch {
			case len(found) != 1 || found[0] != want:
				return fmt.Errorf("who was %s at %s: got %+v, want %+v", answered.Source, answered.Answered, found, want)
			case !want.counted(): // it closed before the gateway had seen that the kernel counts
				choose()
				return fmt.Errorf("the kernel counts, and %s has no packets and bytes on record", p.name)
			case !want.plausible():
				w.t.Errorf("of a connection that is greeted there are %d packets with %d bytes on record, and %d with %d back",
					*want.PacketsSent, *want.BytesSent, *want.PacketsReceived, *want.BytesReceived)
			}
			return nil
		})
	}
	w.sysctl("nf_conntrack_acct=0", "nf_conntrack_tcp_timeout_close=10")
	w.kubectl("patch", "egressroute", "payments", "--type", "merge", "-p", `{"spec":{"audit":false}}`)
}

// sysctl sets what connection tracking does on every node.
func (w *world) sysctl(settings ...string) {
	w.t.Helper()
	for _, j := range w.everyNode() {
		for _, s := range settings {
			_, err := w.Lab.Exec(lab.NodeName(j), "sysctl", "-qw", "net.netfilter."+s)
			w.must(err)
		}
	}
}

// who is whom a gateway has on record for an exchange, the holder or, should the VIP have
// moved meanwhile, another.
func (w *world) who(e lab.Exchange) ([]onRecord, error) {
	nodes := w.everyNode()
	held := w.holder(nodes...)
	slices.SortStableFunc(nodes, func(a, b int) int {
		return strings.Compare(strconv.FormatBool(b == held), strconv.FormatBool(a == held))
	})
	for _, j := range nodes {
		s, err := w.status(lab.Gateway, j)
		if err != nil {
			return nil, err
		}
		// Looking makes the kernel remove, and tell of, what has expired.
		if _, err := w.Lab.Exec(lab.NodeName(j), "conntrack", "-L", "-p", "tcp", "--state", "CLOSE"); err != nil {
			return nil, err
		}
		said, err := w.API.Kubectl(w.ctx, "", "-n", namespace, "exec", s.Name, "--", "sallyport", "audit", "-o", "json", "--protocol", "tcp",
			"--at", e.Answered.UTC().Format(time.RFC3339Nano), "--vip", theVIP.String(), "--port", strconv.Itoa(int(e.Source.Port())))
		var is struct{ Found []onRecord }
		// Who has nobody on record says so, and fails.
		if parsed := json.Unmarshal([]byte(said), &is); parsed != nil || err != nil && len(is.Found) > 0 {
			return nil, fmt.Errorf("audit by %s said %q: %w", s.Name, said, errors.Join(err, parsed))
		}
		if len(is.Found) > 0 {
			return is.Found, nil
		}
	}
	return nil, nil
}

// recordsStay demands that uninstalling left the records, for root alone, and nothing
// beside them; then it removes them.
func (w *world) recordsStay() {
	w.t.Helper()
	for _, j := range w.everyNode() {
		left, err := w.Run(j, "find", "/var/lib/sallyport", "-mindepth", "1", "-printf", "%M %P\n")
		w.must(err)
		if want := "drwx------ audit\n-rw------- audit/connections.jsonl"; strings.TrimSpace(left) != want {
			w.t.Errorf("uninstalling left on n%d\n%s\nwant\n%s", j, left, want)
		}
		_, err = w.Run(j, "rm", "-r", "/var/lib/sallyport")
		w.must(err)
	}
}
