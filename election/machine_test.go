package election

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const vip = "192.0.2.10"

func config(id string, replicas int) Config {
	return Config{ID: id, Incarnation: 1, Replicas: replicas, Timing: Profiles["default"], VIPs: []string{vip}, Seed: 1}
}

func machine(t testing.TB, cfg Config) *Machine {
	t.Helper()
	m, err := New(cfg, 0)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestValidateNamesEverythingWrong(t *testing.T) {
	if err := config("n1", 3).Validate(); err != nil {
		t.Errorf("a good configuration: %v", err)
	}
	for name, timing := range Profiles {
		if err := timing.Validate(); err != nil {
			t.Errorf("profile %s: %v", name, err)
		}
	}
	_, err := New(Config{Replicas: 99, VIPs: []string{"", "a", "a"}, Forget: -1, Timing: Timing{Lease: time.Hour, Margin: -1, Drift: 1}}, 0)
	for _, want := range []string{"id \"\"", "incarnation", "replicas 99", "forget", "vip \"\"", "vip \"a\": is given twice", "lease 1h", "heartbeat 0s", "margin -1ns", "spread 0s", "drift 1"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not name %q", err, want)
		}
	}
	short := Profiles["default"]
	short.Heartbeat = 40 * time.Millisecond
	if err := short.Validate(); err == nil || !strings.Contains(err.Error(), "less than three heartbeats") {
		t.Errorf("three heartbeats of %v in a lease of %v: %v", short.Heartbeat, short.Lease, err)
	}
}

// The span times the slowest clock must end before the promise times the fastest.
func TestSpanEndsBeforePromise(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := rapid.Float64Range(0, 0.1).Draw(t, "drift")
		lease := time.Duration(rapid.Int64Range(int64(time.Millisecond), int64(time.Minute)).Draw(t, "lease"))
		span := Timing{Lease: lease, Drift: d}.Span()
		if float64(span)/(1-d) > float64(lease)/(1+d)+2 {
			t.Fatalf("span %v outlasts the promise %v at drift %v", span, lease, d)
		}
	})
}

func anyMessage(t *rapid.T) Message {
	msg := Message{
		From: rapid.SampledFrom([]string{"n1", "n2", "n3", "n4", ""}).Draw(t, "from"), Incarnation: rapid.Uint64Range(0, 3).Draw(t, "incarnation"),
		Replicas: rapid.SampledFrom([]int{3, 3, 3, 3, 5}).Draw(t, "replicas"), Timing: Profiles["default"],
		Voters: rapid.SliceOfN(rapid.SampledFrom([]string{"n1", "n2", "n3", "n4"}), 0, 4).Draw(t, "voters"), Leaving: rapid.IntRange(0, 20).Draw(t, "leaving") == 0,
	}
	for range rapid.IntRange(0, 3).Draw(t, "entries") {
		msg.Entries = append(msg.Entries, Entry{
			Kind: Kind(rapid.Uint8Max(12).Draw(t, "kind")), VIP: rapid.SampledFrom([]string{vip, "192.0.2.11"}).Draw(t, "vip"),
			Term: rapid.OneOf(rapid.Uint64Max(5), rapid.Just[uint64](1<<64-1), rapid.Just[uint64](MaxTerm)).Draw(t, "term"),
			Sent: time.Duration(rapid.Int64Range(-1e6, 1e9).Draw(t, "sent")), Wait: time.Duration(rapid.Int64().Draw(t, "wait")), For: rapid.Uint64Range(0, 2).Draw(t, "for"),
			Heir: rapid.SampledFrom([]string{"", "n1", "n2"}).Draw(t, "heir"),
		})
	}
	return msg
}

// Whatever it is told: terms never shrink, no lease outlasts the span, Tick leaves
// nothing due, and equal input gives equal output.
func TestMachineUnderAnyInput(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cfg := config("n1", 3)
		m, _ := New(cfg, 0)
		twin, _ := New(cfg, 0)
		var now time.Duration
		var term uint64
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now += time.Duration(rapid.Int64Range(0, 30e6).Draw(t, "passes"))
			var act func(*Machine) Ready
			switch rapid.IntRange(0, 9).Draw(t, "what") {
			case 0:
				act = func(m *Machine) Ready { return m.SetEligible(now, vip, false, "link down") }
			case 1:
				act = func(m *Machine) Ready { return m.SetEligible(now, vip, true, "") }
			case 2:
				act = func(m *Machine) Ready { return m.Resign(now, vip, "asked to") }
			case 3, 4:
				act = func(m *Machine) Ready { return m.Tick(now) }
			case 5:
				act = func(m *Machine) Ready {
					r := m.Offer(now, vip)
					over, _ := m.HandOver(now, vip, "n2")
					return Ready{append(r.Leases, over.Leases...), append(r.Send, over.Send...), append(r.Transitions, over.Transitions...)}
				}
			default:
				msg := anyMessage(t)
				act = func(m *Machine) Ready { return m.Step(now, msg) }
			}
			r := act(m)
			if other := act(twin); !reflect.DeepEqual(r, other) {
				t.Fatalf("equal input gave\n%+v\n%+v", r, other)
			}
			for _, l := range r.Leases {
				if l.Until > now+cfg.Timing.Span() {
					t.Fatalf("lease until %v at %v is longer than the span", l.Until, now)
				}
			}
			if got := m.contests[0].term; got < term || got > MaxTerm+1 {
				t.Fatalf("term went from %d to %d", term, got)
			}
			term = m.contests[0].term
			m.Tick(now)
			twin.Tick(now)
			if m.Next() <= now {
				t.Fatalf("after Tick(%v) the next is due at %v", now, m.Next())
			}
			_, _ = m.Status(), m.Problems()
		}
	})
}

// Garbage from a peer that means nothing here is not answered.
func TestNoOutputForGarbage(t *testing.T) {
	m := machine(t, config("n1", 3))
	now := 120 * time.Millisecond
	m.Tick(60 * time.Millisecond)
	m.Tick(now)
	for _, msg := range []Message{
		{}, {From: "n2"}, {From: "n1", Incarnation: 9}, {From: strings.Repeat("n", 999), Incarnation: 1},
		{From: "n2", Incarnation: 1, Replicas: 5, Timing: Profiles["default"], Entries: []Entry{{Kind: Vote, VIP: vip, Term: 1}}},
		{From: "n2", Incarnation: 1, Replicas: 3, Timing: Profiles["wan"], Entries: []Entry{{Kind: Vote, VIP: vip, Term: 1}}},
		{From: "n2", Incarnation: 1, Replicas: 3, Timing: Profiles["default"], Entries: []Entry{
			{Kind: Vote, VIP: "another", Term: 1}, {Kind: 77, VIP: vip, Term: 1, For: 1}, {Kind: Vote, VIP: vip, Term: MaxTerm + 1},
			{Kind: Ack, VIP: vip, For: 1}, {Kind: Grant, VIP: vip, For: 1}, {Kind: Ack, VIP: vip, Sent: time.Hour, For: 1}}},
	} {
		m.Tick(now)
		if r := m.Step(now, msg); !reflect.DeepEqual(r, Ready{}) {
			t.Errorf("%+v was answered with %+v", msg, r)
		}
	}
}

func TestManyVIPsTravelTogether(t *testing.T) {
	cfg := config("n1", 1)
	cfg.VIPs = nil
	for i := range MaxEntries + 1 {
		cfg.VIPs = append(cfg.VIPs, fmt.Sprintf("192.0.2.%d", i))
	}
	m := machine(t, cfg)
	now := time.Duration(0)
	for m.Status()[MaxEntries].Role != Holder || m.Status()[0].Role != Holder {
		now = m.Next()
		m.Tick(now)
		if now > time.Second {
			t.Fatalf("it alone does not hold: %+v", m.Status())
		}
	}
	now = max(m.beatAt, now+1)
	r := m.Tick(now)
	var sizes []int
	for _, out := range r.Send {
		sizes = append(sizes, len(out.Message.Entries))
	}
	if !reflect.DeepEqual(sizes, []int{MaxEntries, 1}) || len(r.Leases) != MaxEntries+1 {
		t.Errorf("%d leases were renewed with messages of %v entries", len(r.Leases), sizes)
	}
}

// BenchmarkStep is a standby's answer to a heartbeat about ten VIPs.
func BenchmarkStep(b *testing.B) {
	cfg := config("n2", 3)
	cfg.VIPs = nil
	msg := Message{From: "n1", Incarnation: 1, Replicas: 3, Timing: cfg.Timing}
	for i := range 10 {
		cfg.VIPs = append(cfg.VIPs, fmt.Sprintf("192.0.2.%d", i))
		msg.Entries = append(msg.Entries, Entry{Kind: Heartbeat, VIP: cfg.VIPs[i], Term: 1})
	}
	m := machine(b, cfg)
	now := time.Duration(0)
	b.ReportAllocs()
	for b.Loop() {
		now += 20 * time.Millisecond
		for i := range msg.Entries {
			msg.Entries[i].Sent = now
		}
		m.Step(now, msg)
	}
}
