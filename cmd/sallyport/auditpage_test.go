package main

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/audit"
	"github.com/sallyport/sallyport/audit/journal"
	"github.com/sallyport/sallyport/gateway"
)

const auditPage = "../../docs/audit.md"

// exampleLog has what a gateway writes of a connection that somebody complains about, and
// of one that nobody does.
func exampleLog(t *testing.T) (path string) {
	t.Helper()
	const name = "sallyport-gateway-0"
	vip, partner := netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("203.0.113.5")
	web, cart := netip.MustParseAddr("10.244.1.10"), netip.MustParseAddr("10.244.2.7")
	at := func(clock string) time.Time {
		t.Helper()
		moment, err := time.Parse(time.RFC3339, "2026-11-21T"+clock+"Z")
		if err != nil {
			t.Fatal(err)
		}
		return moment
	}
	d := audit.NewDirectory(gateway.Plan{
		Routes: []gateway.PlannedRoute{{Name: "payments", ID: 7, VIP: vip, Audit: true}},
		Pods: []gateway.PlannedPod{
			{Addr: web, Namespace: "shop", Name: "web-0", UID: "6f1c0f0e-58a2-4a08-9a50-1e0b4c9d7f21", Node: "n1"},
			{Addr: cart, Namespace: "shop", Name: "cart-0", UID: "a2b7c4d1-90ee-4f6b-8c11-5d3f7e6a0b92", Node: "n2"},
		},
	}, nil)
	b := audit.Book{Gateway: name}
	records := b.Holder(nil, vip, name, at("00:00:00.120"), d)
	for _, x := range []struct {
		kind  audit.Kind
		pod   netip.Addr
		port  uint16
		clock string
	}{
		{audit.Began, web, 43211, "14:03:06.512"}, {audit.Closed, web, 43211, "14:03:08.020"},
		{audit.Began, cart, 50944, "15:10:42.31"}, {audit.Closed, cart, 50944, "15:10:44.87"},
	} {
		records = b.See(records, &audit.Sighting{
			Key: audit.KeyOf(x.pod, partner, x.port, 443, 6), Kind: x.kind, VIP: vip, Port: x.port, Route: 7, Replied: true, Over: x.kind == audit.Closed,
		}, at(x.clock), d)
	}
	path = filepath.Join(t.TempDir(), "connections.jsonl")
	j := journal.New(journal.Config{Path: path, Keep: journal.LeastKeep, Gateway: name})
	for i := range records {
		j.Add(&records[i], at("15:10:45"))
	}
	j.End(at("15:10:45"))
	return path
}

// TestAuditPageShowsWhatIsPrinted: the question of docs/audit.md, asked of a log, has its
// answer, and the line that it shows is the log's.
func TestAuditPageShowsWhatIsPrinted(t *testing.T) {
	log := exampleLog(t)
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	before := page(t, auditPage)
	_, asked, _ := strings.Cut(before, "-- sallyport audit ")
	asked, _, _ = strings.Cut(asked, "\n")
	var out strings.Builder
	cmd := auditCommand()
	cmd.SetOut(&out)
	cmd.SetArgs(append(strings.Fields(asked), log))
	if err := cmd.Execute(); err != nil {
		t.Fatalf("sallyport audit %s: %v\n%s", asked, err, out.String())
	}
	// The columns are as wide as the test's path asks for.
	answer := strings.ReplaceAll(out.String(), log, defaultAuditLog)
	var lines []string
	for line := range strings.Lines(answer) {
		if strings.HasPrefix(line, "LOOKED AT") || strings.HasPrefix(line, defaultAuditLog) {
			head, tail, _ := strings.Cut(line, "  ")
			line = head + strings.Repeat(" ", len(defaultAuditLog)-len(head)+2) + strings.TrimLeft(tail, " ")
		}
		lines = append(lines, line)
	}
	answer = strings.Join(lines, "")
	after := before
	for _, part := range []struct{ begin, end, want string }{
		{"sallyport audit " + asked + "\n", "```", answer},
		{"```json\n", "```", strings.SplitAfter(string(text), "\n")[1]},
	} {
		head, rest, found := strings.Cut(after, part.begin)
		_, tail, ended := strings.Cut(rest, part.end)
		if !found || !ended {
			t.Fatalf("%s has no %q and a block after it", auditPage, part.begin)
		}
		after = head + part.begin + part.want + part.end + tail
	}
	switch {
	case after == before:
	case *update:
		if err := os.WriteFile(auditPage, []byte(after), 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("%s shows not what is printed: run make docs", auditPage)
	}
}
