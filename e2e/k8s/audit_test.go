package k8s

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport/sallyport/doctor"
	"github.com/sallyport/sallyport/e2e/lab"
)

// logged has the gateways keep an audit log, printed on the container's output. With thorough
// they write down beginnings, too, in files that are full within seconds.
const (
	logged   = "gateway.audit.output=file"
	printed  = "gateway.audit.output=stdout"
	thorough = "gateway.audit.starts=true,gateway.audit.keep=4Mi"
)

// audit says whether the route's connections are to be on record.
func (w *world) audit(is bool) {
	w.t.Helper()
	w.kubectl("patch", "egressroute", "payments", "--type", "merge", "-p", fmt.Sprintf(`{"spec":{"audit":%t}}`, is))
}

// onRecord is what a line says that an auditor asks for.
type onRecord struct {
	Event, Namespace, Pod, Node, Source, Route, VIP, Destination, Protocol string

	Port, DestinationPort uint16
	course
	carried
}

// ended is what is to be on record of a pod's connection to the address.
func ended(p pod, e lab.Exchange, to netip.Addr) onRecord {
	return onRecord{
		Event: "end", Namespace: "default", Pod: p.name, Node: lab.NodeName(p.node), Source: p.addr.String(), Route: "payments",
		VIP: theVIP.String(), Port: e.Source.Port(), Destination: to.String(), DestinationPort: lab.TCPPort, Protocol: "tcp",
	}
}

// course is how a connection went.
type course struct {
	Seconds *float64
	Reason  string
}

// closed tells whether the connection was ended by one side within a while.
func (c course) closed() bool {
	return c.Seconds != nil && *c.Seconds >= 0 && *c.Seconds < patience.Seconds() && (c.Reason == "fin" || c.Reason == "reset")
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
	w.audit(true)
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
		answered := w.answered(p)
		w.await(func() error {
			found, err := w.who(answered)
			if err != nil {
				return err
			}
			want := ended(p, answered, a.to)
			if len(found) == 1 {
				want.carried, want.course = found[0].carried, found[0].course
			}
			switch {
			case len(found) != 1 || found[0] != want:
				return fmt.Errorf("who was %s at %s: got %+v, want %+v", answered.Source, answered.Answered, found, want)
			case !want.counted() || !want.closed(): // it closed before the gateway had seen that the kernel counts
				answered = w.answered(p)
				return fmt.Errorf("the kernel counts, and %s has no packets and bytes on record, or not how it went: %+v", p.name, found[0])
			case !want.plausible():
				w.t.Errorf("of a connection that is greeted there are %d packets with %d bytes on record, and %d with %d back",
					*want.PacketsSent, *want.BytesSent, *want.PacketsReceived, *want.BytesReceived)
			}
			return nil
		})
	}
	w.sysctl("nf_conntrack_acct=0", "nf_conntrack_tcp_timeout_close=10")
}

// begun demands that the beginnings of the pods' connections are on record if they were asked for,
// and only then, and that so many lines fill more than a file.
func (w *world) begun(a app, askedFor bool) {
	w.t.Helper()
	const starts = `cat /var/lib/sallyport/audit/connections.jsonl* 2>/dev/null | grep -F '"event":"start"' | grep -F '"namespace":"default","pod":"%s"' || true`
	written := func(command string) (all string) {
		for _, j := range w.everyNode() {
			said, err := w.Run(j, "sh", "-c", command)
			w.must(err)
			all += said
		}
		return all
	}
	for _, p := range w.pods(a) {
		if found := written(fmt.Sprintf(starts, p.name)); (found != "") != askedFor {
			w.t.Errorf("beginnings of connections of %s are on record: %t, asked for: %t", p.name, found != "", askedFor)
		}
	}
	w.await(func() error {
		if full := written("find /var/lib/sallyport -path '*/audit/connections.jsonl.*Z'"); askedFor && full == "" {
			return errors.New("no file is full yet")
		}
		return nil
	})
}

// prints demands of gateways that record to their containers' output that it says which pod a
// connection was, to who has collected it.
func (w *world) prints(p pod, to netip.Addr) {
	w.t.Helper()
	w.audit(true)
	defer w.audit(false)
	dir := w.t.TempDir()
	w.await(func() error {
		asked := w.answered(p) // one from before the route was audited is on no record
		return lab.AwaitEvery(w.ctx, lookEvery, 10*time.Second, func() error {
			args := []string{"audit", "-o", "json", "--protocol", "tcp", "--at", asked.Answered.UTC().Format(time.RFC3339Nano), "--vip", theVIP.String(), "--port", strconv.Itoa(int(asked.Source.Port()))}
			for _, j := range w.everyNode() {
				s, err := w.status(lab.Gateway, j)
				w.must(err)
				file := filepath.Join(dir, s.Name)
				w.must(os.WriteFile(file, []byte(w.kubectl("logs", "-n", namespace, s.Name)), 0o600))
				args = append(args, file)
			}
			said, err := exec.CommandContext(w.ctx, w.program(), args...).Output()
			var is struct{ Found []onRecord }
			parsed := json.Unmarshal(said, &is)
			want := ended(p, asked, to)
			if len(is.Found) == 1 {
				want.course = is.Found[0].course
			}
			if parsed != nil || len(is.Found) != 1 || is.Found[0] != want || !want.closed() {
				return fmt.Errorf("of %s, which %s had at %s, the containers' outputs say %s (%w)", asked.Source, p.name, asked.Answered, said, errors.Join(err, parsed))
			}
			return nil
		})
	})
}

// answered awaits a connection of the pod that begins from now on and is answered.
func (w *world) answered(p pod) (e lab.Exchange) {
	w.t.Helper()
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
		e = r.Connects.Exchanges[i]
		return nil
	})
	return e
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
		if want := regexp.MustCompile(`^drwx------ audit\n(-rw------- audit/connections\.jsonl(\.\w+\.\d+Z)?\n)+$`); !want.MatchString(left) {
			w.t.Errorf("uninstalling left on n%d\n%s\nwant\n%s", j, left, want)
		}
		_, err = w.Run(j, "rm", "-r", "/var/lib/sallyport")
		w.must(err)
	}
}
