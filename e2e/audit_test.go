package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/audit"
	"github.com/sallyport/sallyport/e2e/lab"
)

const audited = payments + "audit: true\n"

// alone keeps the VIP where it is, whatever the load of the machine.
var alone = lab.Options{GatewayNodes: []int{1}, GatewayArgs: []string{"--timing", "wan"}}

// auditor is a world whose gateways keep logs.
type auditor struct {
	*world
	log string // "-" for the standard output
}

// newAuditor starts it. The sysctls are the nodes' before a gateway starts.
func newAuditor(t *testing.T, o lab.Options, log string, sysctls []string, args ...string) *auditor {
	t.Helper()
	w := &auditor{newWorld(t, o), log}
	w.must(w.Manifests.WriteRoute("payments", audited))
	for _, j := range w.Options.GatewayNodes {
		ns, err := w.Namespace(lab.NodeName(j))
		w.must(err)
		w.must(ns.Sysctls(sysctls...))
		to := log
		if log != "-" {
			to = w.auditLog(j)
		}
		_, err = w.StartGateway(j, append([]string{"--audit-log", to}, args...)...)
		w.must(err)
	}
	for j := 1; j <= w.Options.Nodes; j++ {
		_, err := w.StartAgent(j)
		w.must(err)
	}
	w.awaitReady()
	return w
}

func (w *auditor) auditLog(j int) string {
	w.t.Helper()
	if w.log == "-" {
		return w.gateway(j).Log
	}
	return filepath.Join(w.StateDir(lab.Gateway, j), "audit", w.log)
}

// logs are those of the nodes' gateways that have one by now.
func (w *auditor) logs(nodes ...int) (paths []string) {
	w.t.Helper()
	for _, j := range nodes {
		if _, err := os.Stat(w.auditLog(j)); err == nil {
			paths = append(paths, w.auditLog(j))
		}
	}
	return paths
}

// expect asks the logs of the nodes, as people do, until they say that the pod, and
// nobody else, had the port then, by one record that is as wanted.
func (w *auditor) expect(at time.Time, port uint16, protocol, pod string, wanted func(audit.Record) bool, nodes ...int) {
	w.t.Helper()
	w.await(func() error {
		args := []string{"audit", "-o", "json", "--at", at.UTC().Format(time.RFC3339Nano), "--port", strconv.Itoa(int(port)),
			"--vip", theVIP.String(), "--protocol", protocol}
		out, err := exec.Command(binary, append(args, w.logs(nodes...)...)...).Output()
		var answer struct{ Found []json.RawMessage }
		if jsonErr := json.Unmarshal(out, &answer); jsonErr != nil {
			return fmt.Errorf("sallyport audit: %v, %v: %s", err, jsonErr, out)
		}
		if len(answer.Found) != 1 {
			return fmt.Errorf("%s port %d at %s is on %d records, want one of %s: %s", protocol, port, at, len(answer.Found), pod, answer.Found)
		}
		r, err := audit.Parse(answer.Found[0])
		if err == nil && (r.Pod.Name != pod || r.Pod.Namespace != "default" || !wanted(r)) {
			err = fmt.Errorf("on record is, not as wanted of %s: %s", pod, answer.Found[0])
		}
		return err
	})
}

// records are the lines of a node's log.
func (w *auditor) records(j int) (all []audit.Record) {
	w.t.Helper()
	text, err := os.ReadFile(w.auditLog(j))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // nothing has been on record for a second
	}
	w.must(err)
	for line := range bytes.Lines(text) {
		if !bytes.HasSuffix(line, []byte("\n")) {
			break // it is being written
		}
		r, err := audit.Parse(line)
		if err != nil && w.log == "-" {
			continue // what the program says, on the standard error
		}
		w.must(err)
		all = append(all, r)
	}
	return all
}

// portIn is the port in what a partner's answer says of whom it saw.
func portIn(t *testing.T, seen string) uint16 {
	t.Helper()
	if len(seen) != 6 || seen[:4] != string(theVIP.AsSlice()) {
		t.Fatalf("the partner saw %x, not %s", seen, theVIP)
	}
	return uint16(seen[4])<<8 | uint16(seen[5])
}

func begun(r audit.Record) bool { return r.Event == audit.StartEvent && !r.Start.IsZero() }

// finished is a connection that both sides ended, and whose start is known; nobody counted
// what it carried.
func finished(r audit.Record) bool {
	return r.Event == audit.EndEvent && r.Reason == audit.Finished && !r.Start.IsZero() && r.Answered && !r.Counted
}

// followed waits until the gateways have a stream from the holder, and all there was.
func (w *world) followed(nodes ...int) {
	w.t.Helper()
	w.await(func() error {
		for _, j := range nodes {
			if r := w.status(lab.Gateway, j).VIPs[0].Replication; r == nil || !r.InStep {
				return fmt.Errorf("n%d is not in step with the holder", j)
			}
		}
		return nil
	})
}

// TestThePartnersViewIsOnRecord: whatever VIP and port the partner saw, the holder's log
// names the pod behind it, also of two pods that use one port of their own; and what
// outlives its holder is on one record, by the heir, with its start. The VIP moves when the
// test has it moved, whatever the load of the machine.
func TestThePartnersViewIsOnRecord(t *testing.T) {
	t.Parallel()
	for _, fault := range []string{"power cut", "handover"} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			w := newAuditor(t, lab.Options{GatewayArgs: alone.GatewayArgs}, "c.jsonl", nil, "--audit-start")
			holder := w.holder()
			rest := w.Others(holder)
			w.followed(rest...) // or they could not tell what begins from what they missed
			var streams []*lab.Stream
			for _, j := range rest {
				w.seenEventually(selected(j), partner, theVIP)
				s, err := w.StartStreamFrom(selected(j), 21000, partner, 5*time.Millisecond)
				w.must(err)
				streams = append(streams, s)
			}
			if streams[0].Source() == streams[1].Source() {
				t.Fatalf("no clash to test: both are seen as %s", streams[0].Source())
			}
			at := time.Now()
			for i, j := range rest {
				w.expect(at, streams[i].Source().Port(), "tcp", selected(j), begun, holder)
			}
			w.ping(selected(rest[0]), "4711")
			w.expect(time.Now(), 4711, "icmp", selected(rest[0]), begun, holder)
			u := w.talk(selected(rest[0]), 21002)
			seen := u.ask()
			w.expect(time.Now(), portIn(t, seen), "udp", selected(rest[0]), begun, holder)

			// One ends here, the other on the heir.
			streams[0].Stop()
			w.expect(at, streams[0].Source().Port(), "tcp", selected(rest[0]), finished, holder)
			w.inStep(holder, rest...)
			if fault == "handover" {
				_, err := w.handOver(holder)
				w.must(err)
			} else {
				_, err := w.PowerCut(holder)
				w.must(err)
			}
			heir := w.awaitHolder(rest...)
			w.goesOn(streams[1])
			streams[1].Stop()
			w.expect(at, streams[1].Source().Port(), "tcp", selected(rest[1]), finished, heir)
			w.expect(at, streams[1].Source().Port(), "tcp", selected(rest[1]), finished, w.Options.GatewayNodes...)
			if info, err := os.Stat(w.auditLog(heir)); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("the log: %v, %v; want it for root alone", info, err)
			}
		})
	}
}

// A route that wants a record where none can be kept is served, and the lack is told.
func TestARouteThatNobodyRecordsIsNamed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, lab.Options{Nodes: 1, PodsPerNode: 1, GatewayArgs: []string{"--replicate=false"}})
	w.must(w.Manifests.WriteRoute("payments", payments+"audit: true\n"))
	w.must(w.StartAll())
	w.awaitReady()
	w.says(lab.Gateway, 1, "EgressRoute payments", "spec.audit", "gateway n1 keeps no audit log", "run it with --audit-log, which needs --replicate", "or remove audit: true")
	w.seenEventually(selected(1), partner, theVIP)
	w.must(w.Manifests.WriteRoute("payments", payments))
	w.content(lab.Gateway, 1)
}

// TestAuditCountsWhatWasCarried: with the kernel's accounting, which may be turned on while
// the gateway runs, and on the standard output, a record has what the packets come to.
func TestAuditCountsWhatWasCarried(t *testing.T) {
	t.Parallel()
	w := newAuditor(t, alone, "-", []string{"netfilter/nf_conntrack_acct=0", "netfilter/nf_conntrack_udp_timeout=1",
		"netfilter/nf_conntrack_udp_timeout_stream=1", "netfilter/nf_conntrack_tcp_timeout_time_wait=1"})
	holder := w.holder()
	pod := selected(w.Others(holder)[0])
	w.seenEventually(pod, partner, theVIP)
	_, err := w.Exec(lab.NodeName(holder), "sysctl", "-qw", "net.netfilter.nf_conntrack_acct=1")
	w.must(err)
	// What follows of UDP is written by then, so the gateway has looked before TCP closes.
	u := w.talk(pod, 21002)
	const asked = 7
	var seen string
	for range asked {
		seen = u.ask()
	}
	at := time.Now()
	// A question is one byte behind 28 of headers; the answer has whom the partner saw, too.
	gone := func() error { // looking makes the kernel remove what has expired
		out, err := w.Exec(lab.NodeName(holder), "conntrack", "-L", "--zone", strconv.Itoa(gatewayZone), "-s", w.addrOf(pod).String())
		if err == nil && !strings.Contains(out, " 0 flow entries") {
			err = fmt.Errorf("connections that nobody uses are still there: %s", out)
		}
		return err
	}
	w.await(gone)
	w.expect(at, portIn(t, seen), "udp", pod, func(r audit.Record) bool {
		return r.Event == audit.EndEvent && r.Reason == audit.Timeout && r.Answered && r.Counted && !r.TakenOver &&
			r.Sent.Packets >= asked && r.Sent.Bytes == 29*r.Sent.Packets && r.Received.Packets == r.Sent.Packets &&
			r.Received.Bytes == (29+uint64(len(seen)))*r.Received.Packets
	}, holder)

	s, err := w.StartStream(pod, partner, 5*time.Millisecond)
	w.must(err)
	w.goesOn(s)
	at = time.Now()
	s.Stop()
	w.await(gone)
	w.expect(at, s.Source().Port(), "tcp", pod, func(r audit.Record) bool {
		return r.Event == audit.EndEvent && r.Reason == audit.Finished && r.Counted && r.Sent.Packets > 3 && r.Sent.Bytes > 40*r.Sent.Packets &&
			r.Received.Packets > 2 && r.Received.Bytes > 40*r.Received.Packets
	}, holder)
	for _, r := range w.records(holder) {
		if r.Event == audit.StartEvent {
			t.Errorf("a start was not asked for: %+v", r)
		}
	}
}

// TestAuditLosesNothingSilently: with room for one sighting in the queue, each connection
// is on record, or counted, in the status and in the log.
func TestAuditLosesNothingSilently(t *testing.T) {
	t.Parallel()
	w := newAuditor(t, alone, "c.jsonl", nil, "--audit-queue", "1")
	holder := w.holder()
	pod := selected(w.Others(holder)[0])
	w.seenEventually(pod, partner, theVIP)
	const first, round = 22000, 50
	next := first
	// What began and was forgotten between two looks at the kernel's table is lost: a round
	// that a look fell into is followed by another.
	for w.status(lab.Gateway, holder).Audit.Missing == 0 && next < first+6000 {
		for range round {
			u := w.talk(pod, next)
			u.ask()
			next++
		}
		_, err := w.Exec(lab.NodeName(holder), "conntrack", "-D", "-w", fmt.Sprint(gatewayZone), "-p", "udp", "-s", w.addrOf(pod).String())
		w.must(err)
	}
	w.await(func() error {
		var ends, lost uint64
		for _, r := range w.records(holder) {
			switch {
			case r.Event == audit.EndEvent && r.Protocol == "udp" && r.SourcePort >= first && int(r.SourcePort) < next:
				ends++
			case r.Event == audit.LostEvent && r.Lost == nil:
				return fmt.Errorf("a loss of unknown size: %+v", r)
			case r.Event == audit.LostEvent:
				lost += *r.Lost
			}
		}
		counted := w.status(lab.Gateway, holder).Audit
		if lost == 0 || lost != counted.Missing || ends+lost != uint64(next-first) {
			return fmt.Errorf("of %d connections %d are on record, the log has %d lost, the status %+v", next-first, ends, lost, *counted)
		}
		return nil
	})
}
