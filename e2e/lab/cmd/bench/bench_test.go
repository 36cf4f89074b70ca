package main

import (
	"context"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/e2e/lab"
)

// TestMain lets the test's program be the instrument that a probe starts.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "instrument" {
		os.Exit(run())
	}
	os.Exit(m.Run())
}

func TestSpliceRewritesOnlyItsSection(t *testing.T) {
	document := preface
	for _, name := range []string{"scale", "failover", "throughput", "quiet"} {
		var err error
		if document, err = splice(document, name, "## "+name+"\n\nfirst"); err != nil {
			t.Fatal(err)
		}
	}
	var order []string
	for line := range strings.Lines(document) {
		if title, ok := strings.CutPrefix(line, "## "); ok {
			order = append(order, strings.TrimSpace(title))
		}
	}
	if want := []string{"failover", "quiet", "throughput", "scale"}; !slices.Equal(order, want) {
		t.Errorf("sections in order %v, want %v", order, want)
	}
	again, err := splice(document, "quiet", "## quiet\n\nsecond")
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Replace(document, "## quiet\n\nfirst", "## quiet\n\nsecond", 1)
	if again != want || !strings.HasPrefix(again, preface[:len(preface)-1]) {
		t.Errorf("measured again:\n%s", again)
	}
	if _, err := splice(strings.Replace(document, closing("quiet"), "", 1), "quiet", "x"); err == nil {
		t.Error("a section without an end was replaced: what follows it would be lost")
	}
}

func TestTrials(t *testing.T) {
	var up trials
	for i := range 20 {
		up = append(up, float64(20-i))
	}
	if m, p, r := up.median(), up.quantile(.95), up.reached(); m != 10 || p != 19 || r != 2 {
		t.Errorf("of 1 to 20: median %v, p95 %v, reached by 95 %% %v; want 10, 19, 2", m, p, r)
	}
	if got := (trials{2, 9, 4}).against(trials{1, 0, 8}); !slices.Equal(got, trials{2, .5}) {
		t.Errorf("ratios %v, want 2 and 0.5: a trial without a base has none", got)
	}
}

func TestLongestGapEndsWithTheQuestions(t *testing.T) {
	fault := time.Unix(100, 0)
	at := func(ms int) time.Time { return fault.Add(time.Duration(ms) * time.Millisecond) }
	timeline := lab.Timeline{Exchanges: []lab.Exchange{
		{Sent: at(-900), Answered: at(-900)}, // long before: the gap after it is not the fault's
		{Sent: at(-10), Answered: at(-10)}, {Sent: at(0), Answered: at(400)}, {Sent: at(100), Answered: at(100)}, {Sent: at(150)},
	}}
	if got := longest(timeline, fault, at(160)); got != 110*time.Millisecond {
		t.Errorf("longest gap %v, want the 110 ms before the reply at 100 ms", got)
	}
}

// The kernel's announcement of a set's element is what "one pod" is measured by.
func TestSetWatchSeesAnElementInItsTable(t *testing.T) {
	w := &world{Lab: lab.Test(t, lab.Options{Prefix: "spbt", Nodes: 1, PodsPerNode: -1})}
	s, err := watchSets(w, lab.NodeName(1))
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	seen := s.expect(netip.MustParseAddr("10.246.1.2"))
	for _, script := range []string{
		"add table ip " + gatewayTable, "add set ip " + gatewayTable + " x { type ipv4_addr; }",
		"add element ip " + gatewayTable + " x { 10.246.1.2 }",
	} {
		if _, err := w.Exec(lab.NodeName(1), "nft", script); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := seen.in(context.Background(), gatewayTable); err != nil {
		t.Error(err)
	}
	if len(seen.at[agentTable]) > 0 {
		t.Error("an element of the gateway's table was taken for one of the agent's")
	}
}
