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
	BytesSent                           *uint64
}

// recorded has the route's connections recorded, and demands that who knows a port of the
// VIP and a time learns which of the app's pods it was, and from the doctor why the bytes
// are unknown: the nodes do not count.
func (w *world) recorded(a app) {
	w.t.Helper()
	w.kubectl("patch", "egressroute", "payments", "--type", "merge", "-p", `{"spec":{"audit":true}}`)
	w.await(func() error {
		said, err := w.API.Kubectl(w.ctx, "", "sallyport", "doctor", "-o", "json")
		var r doctor.Report
		if parsed := json.Unmarshal([]byte(said), &r); parsed != nil || err != nil {
			return fmt.Errorf("kubectl sallyport doctor said %q: %w", said, errors.Join(err, parsed))
		}
		for _, j := range w.everyNode() {
			if !slices.ContainsFunc(r.Findings, func(f doctor.Finding) bool {
				return f.Severity == doctor.Warning && f.Where == lab.NodeName(j) && f.Object == "sysctl net.netfilter.nf_conntrack_acct" &&
					strings.Contains(f.Found, "the audit of payments has no packets and bytes")
			}) {
				return fmt.Errorf("nothing of n%d, which counts no bytes, is in %+v", j, r.Findings)
			}
		}
		return nil
	})
	for _, p := range w.pods(a) {
		var answered lab.Exchange
		since := time.Now()
		w.await(func() error {
			r, err := w.hear(p, since)
			if err != nil {
				return err
			}
			i := slices.IndexFunc(r.Connects.Exchanges, func(e lab.Exchange) bool { return !e.Answered.IsZero() })
			if i < 0 {
				return fmt.Errorf("no connection of %s is answered", p.name)
			}
			answered = r.Connects.Exchanges[i]
			return nil
		})
		want := onRecord{"default", p.name, lab.NodeName(p.node), p.addr.String(), "payments", nil}
		w.await(func() error {
			found, err := w.who(answered)
			if err == nil && (len(found) != 1 || found[0] != want) {
				err = fmt.Errorf("who was %s at %s: got %+v, want %+v", answered.Source, answered.Answered, found, want)
			}
			return err
		})
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
