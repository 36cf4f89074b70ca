package gossip

import (
	"context"
	"io"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// The texts are memberlist's own, v0.7.0: state.go, net.go, security.go.
func TestNoteLineKnowsWhatAUserCanCure(t *testing.T) {
	for line, want := range map[string]struct {
		object string
		reason Reason
	}{
		"Decrypt packet failed: no installed keys could decrypt the message from=10.0.0.2:7946":          {"Member n2", WrongKey},
		"failed to receive: no installed keys could decrypt the message from=10.0.0.2:40000":             {"Member n2", WrongKey},
		"Decrypt packet failed: no installed keys could decrypt the message from=10.0.0.9:7946":          {"Member 10.0.0.9", WrongKey},
		"Decrypt packet failed: unsupported encryption version 90 from=10.0.0.9:7946":                    {"Member 10.0.0.9", OtherProtocol},
		"failed to receive: encryption is configured but remote state is not encrypted from=10.0.0.2:4":  {"Member n2", OtherProtocol},
		`discarding packet with unacceptable label "other/9": from=10.0.0.2:7946`:                        {"Member n2", OtherProtocol},
		"Failed push/pull merge: Node 'n2' protocol version (1) is incompatible: [2, 5] from=10.0.0.2:4": {"Member n2", OtherProtocol},
		"Was able to connect to n2 over TCP but UDP probes failed, network may be misconfigured":         {"Member n2", Unreachable},
	} {
		g := quiet(t)
		g.book.learn("n2", addrB, time.Now())
		if !g.noteLine(line) {
			t.Errorf("not known: %s", line)
		}
		g.mu.Lock()
		var found bool
		for _, e := range g.problems {
			found = found || e.problem.Object == want.object && e.problem.Reason == want.reason
		}
		g.mu.Unlock()
		if !found {
			t.Errorf("%s\nis not noted as %v but as %v", line, want, g.problems)
		}
	}
	if quiet(t).noteLine("handler queue full, dropping message (8) from=10.0.0.2:7946") {
		t.Error("a warning nobody can cure is hidden")
	}
}

func TestProblemsNeedMoreThanAStray(t *testing.T) {
	g := quiet(t)
	now := time.Now()
	p := Problem{Object: "Member n2", Reason: WrongKey}
	g.problems.note(p, addrB, strayFor, now)
	if got := g.currentProblems(now); len(got) != 0 {
		t.Errorf("one stray is a problem: %v", got)
	}
	g.problems.note(p, addrB, strayFor, now.Add(strayFor))
	if got := g.currentProblems(now.Add(strayFor)); len(got) != 1 {
		t.Errorf("evidence that goes on is no problem: %v", got)
	}
	if got := g.currentProblems(now.Add(strayFor + problemFor + 1)); len(got) != 0 {
		t.Errorf("a problem outlives its evidence: %v", got)
	}
}

func TestWarningsOfOneKindAreShownOnce(t *testing.T) {
	rec := &record{}
	l := newLines(slog.New(slog.NewTextHandler(rec, nil)), func(string) bool { return false })
	w := l.logger()
	for range 5 {
		w.Printf("[ERR] memberlist: Failed to send gossip to 10.0.0.2:7946: write: network is unreachable")
		w.Printf("[ERR] memberlist: Failed to send gossip to 10.0.0.3:7946: write: network is unreachable")
		w.Printf("[DEBUG] memberlist: Stream connection from=10.0.0.2:1")
	}
	w.Printf("[WARN] memberlist: handler queue full, dropping message (8)")
	ended, end := context.WithCancel(t.Context())
	end()
	l.drain(ended)
	if n := strings.Count(rec.String(), "\n"); n != 2 {
		t.Errorf("%d lines, want one of each kind of warning:\n%s", n, rec)
	}
}

// A log that nobody writes must not stop memberlist.
func TestLinesNeverWait(t *testing.T) {
	l := newLines(slog.New(slog.NewTextHandler(io.Discard, nil)), func(string) bool { return false })
	w := l.logger()
	for range 10 * cap(l.queue) {
		w.Printf("[WARN] memberlist: something")
	}
}

func FuzzLine(f *testing.F) {
	f.Add("[ERR] memberlist: Decrypt packet failed: no installed keys could decrypt the message from=10.0.0.2:7946\n")
	f.Add("[WARN] memberlist: Was able to connect to  over TCP but UDP probes failed")
	f.Fuzz(func(t *testing.T, line string) {
		g := quiet(t)
		_, text := splitLine(line)
		g.noteLine(text)
		kindOf(text)
	})
}

// quiet is a member that does not run.
func quiet(t *testing.T) *Gossip {
	t.Helper()
	g, err := New(Config{
		Name: "n1", Bind: netip.MustParseAddrPort("10.0.0.1:7946"), Keys: keysOf("x"), Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return g
}
