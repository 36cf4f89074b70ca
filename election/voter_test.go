package election

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// bench is one machine, n1 of three, past its wait, spoken to by hand. Its peers
// rank before it or not, as the VIP's hash has it; it never stands by itself
// unless a test lets time pass.
type bench struct {
	t   *testing.T
	m   *Machine
	now time.Duration
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t, m: machine(t, config("n1", 3))}
	b.pass(50 * time.Millisecond)
	b.say("n2", 1)
	b.say("n3", 1)
	b.pass(50 * time.Millisecond)
	if got := b.m.Status()[0].Voters; !slices.Equal(got, []string{"n1", "n2", "n3"}) {
		t.Fatalf("voters are %v", got)
	}
	return b
}

func (b *bench) pass(d time.Duration) string {
	b.now += d
	return spell(b.m.Tick(b.now))
}

func (b *bench) say(from string, incarnation uint64, entries ...Entry) string {
	for i := range entries {
		entries[i].VIP = vip
	}
	return spell(b.m.Step(b.now, Message{From: from, Incarnation: incarnation, Replicas: 3, Timing: Profiles["default"], Entries: entries}))
}

func (b *bench) want(what, got, want string) {
	b.t.Helper()
	if got != want {
		b.t.Fatalf("%s: got %q, want %q", what, got, want)
	}
}

// spell is a Ready in short: gains, losses and entries, in order.
func spell(r Ready) string {
	var words []string
	for _, l := range r.Leases {
		if l.Until == 0 {
			words = append(words, "lost")
		} else {
			words = append(words, fmt.Sprintf("until %v", l.Until.Milliseconds()))
		}
	}
	for _, out := range r.Send {
		for _, e := range out.Message.Entries {
			words = append(words, strings.TrimSpace(fmt.Sprintf("%s %s %d", out.To, e.Kind, e.Term)))
		}
	}
	return strings.Join(words, ", ")
}

func TestVoterBoundToOneAcksNoOther(t *testing.T) {
	b := newBench(t)
	b.want("vote", b.say("n2", 1, Entry{Kind: Vote, Term: 3, Sent: 1}), "n2 grant 3")
	b.want("another's heartbeat", b.say("n3", 1, Entry{Kind: Heartbeat, Term: 5, Sent: 1}), "")
	b.want("another life's heartbeat", b.say("n2", 2, Entry{Kind: Heartbeat, Term: 5, Sent: 1}), "")
	b.want("another's vote", b.say("n3", 1, Entry{Kind: Vote, Term: 5, Sent: 1}), "n3 refuse 3")
	b.want("its heartbeat", b.say("n2", 1, Entry{Kind: Heartbeat, Term: 3, Sent: 2}), "n2 ack 3")
}

func TestVoterVotesOncePerTerm(t *testing.T) {
	b := newBench(t)
	b.want("vote", b.say("n2", 1, Entry{Kind: Vote, Term: 3, Sent: 1}), "n2 grant 3")
	b.say("n2", 1, Entry{Kind: Release, Term: 3})
	b.want("another's vote in the term", b.say("n3", 1, Entry{Kind: Vote, Term: 3, Sent: 1}), "n3 refuse 3")
	b.want("in the next", b.say("n3", 1, Entry{Kind: Vote, Term: 4, Sent: 1}), "n3 grant 4")
}

func TestReleaseFreesExactlyTheTenure(t *testing.T) {
	b := newBench(t)
	b.say("n2", 1, Entry{Kind: Heartbeat, Term: 3, Sent: 1})
	for name, release := range map[string]string{
		"of another":         b.say("n3", 1, Entry{Kind: Release, Term: 3}),
		"of an earlier term": b.say("n2", 1, Entry{Kind: Release, Term: 2}),
		"of another life":    b.say("n2", 9, Entry{Kind: Release, Term: 3}),
	} {
		b.want("release "+name, release, "")
	}
	b.want("vote", b.say("n3", 1, Entry{Kind: Vote, Term: 9, Sent: 1}), "n3 refuse 3")
	b.say("n2", 1, Entry{Kind: Release, Term: 3})
	b.want("heartbeat overtaken by the release", b.say("n2", 1, Entry{Kind: Heartbeat, Term: 3, Sent: 9}), "")
	b.want("vote after the release", b.say("n3", 1, Entry{Kind: Vote, Term: 9, Sent: 2}), "n3 grant 9")
}

// A holder that lets go while the voter is bound to the next must not make it stand.
func TestVoterDoesNotStandWhileBound(t *testing.T) {
	b := newBench(t)
	b.say("n2", 1, Entry{Kind: Heartbeat, Term: 3, Sent: 1})
	b.pass(95 * time.Millisecond)
	b.m.contest(vip).boundUntil = b.now // its promise ends a moment before it misses the holder
	b.want("vote for the next", b.say("n3", 1, Entry{Kind: Vote, Term: 4, Sent: 1}), "n3 grant 4")
	b.say("n2", 1, Entry{Kind: Release, Term: 3})
	for range 9 {
		if got := b.pass(10 * time.Millisecond); got != "" && !strings.HasPrefix(got, "until") {
			t.Fatalf("bound to n3, it says %q", got)
		}
	}
}

func TestOldHeartbeatDoesNotProlongPromise(t *testing.T) {
	b := newBench(t)
	b.say("n2", 1, Entry{Kind: Heartbeat, Term: 3, Sent: 20})
	b.pass(90 * time.Millisecond)
	b.want("doubled", b.say("n2", 1, Entry{Kind: Heartbeat, Term: 3, Sent: 20}), "")
	b.want("overtaken", b.say("n2", 1, Entry{Kind: Heartbeat, Term: 3, Sent: 19}), "")
	b.pass(10 * time.Millisecond)
	if c := b.m.contest(vip); b.now < c.boundUntil {
		t.Errorf("a lease after the heartbeat it is still bound for %v", c.boundUntil-b.now)
	}
}

// elect makes the bench's machine the holder, with n2's vote.
func (b *bench) elect() uint64 {
	b.t.Helper()
	c := b.m.contest(vip)
	for range 1000 {
		if c.stage == holding {
			return c.held
		}
		b.pass(time.Millisecond)
		b.say("n2", 1, Entry{Kind: Favour, Term: c.term + 1, For: 1})
		b.say("n2", 1, Entry{Kind: Grant, Term: c.bid, Sent: b.now, For: 1})
	}
	b.t.Fatalf("not elected: %+v", b.m.Status())
	return 0
}

// An answer renews a lease only if the promise in it was made to this life, in this
// tenure, on something that was asked.
func TestHolderCountsOnlyPromisesOfItsTenure(t *testing.T) {
	b := newBench(t)
	first := b.elect()
	b.m.Resign(b.now, vip, "asked to")
	term := b.elect()
	until := b.m.Status()[0].Until
	b.pass(20 * time.Millisecond)
	for name, e := range map[string]Entry{
		"an earlier tenure":         {Kind: Ack, Term: first, Sent: b.now, For: 1},
		"another life":              {Kind: Ack, Term: term, Sent: b.now, For: 2},
		"what was not asked yet":    {Kind: Ack, Term: term, Sent: b.now + 1, For: 1},
		"a vote that is not on":     {Kind: Grant, Term: term, Sent: b.now, For: 1},
		"term zero":                 {Kind: Ack, Sent: b.now, For: 1},
		"a favour, which is no ack": {Kind: Favour, Term: term, Sent: b.now, For: 1},
	} {
		b.say("n2", 1, e)
		if got := b.m.Status()[0].Until; got != until {
			t.Errorf("an answer to %s moves the lease from %v to %v", name, until, got)
		}
	}
	b.m.Step(b.now, Message{From: "n9", Incarnation: 1, Replicas: 5, Timing: Profiles["default"], Entries: []Entry{{Kind: Ack, VIP: vip, Term: term, Sent: b.now, For: 1}}})
	if got := b.m.Status()[0].Until; got != until {
		t.Errorf("a member of another group moves the lease")
	}
	b.say("n2", 1, Entry{Kind: Ack, Term: term, Sent: b.now, For: 1})
	if got := b.m.Status()[0].Until; got != b.now+Profiles["default"].Span() {
		t.Errorf("the answer that counts gives until %v at %v", got, b.now)
	}
}

// A bid starts without what earlier bids were promised: those were released.
func TestBidStartsWithoutOldPromises(t *testing.T) {
	b := newBench(t)
	b.elect()
	b.m.Resign(b.now, vip, "asked to")
	c := b.m.contest(vip)
	for c.stage != standing {
		b.pass(time.Millisecond)
		b.say("n2", 1, Entry{Kind: Favour, Term: c.term + 1, For: 1})
	}
	if len(c.acked) != 1 {
		t.Errorf("a new bid starts with the promises %v", c.acked)
	}
}

// A voter that knows a newer term gets the holder elected again, without a gap.
func TestHolderRefusedByNewerTermKeepsHolding(t *testing.T) {
	b := newBench(t)
	term := b.elect()
	b.want("refusal", b.say("n3", 1, Entry{Kind: Refuse, Term: term + 5, Sent: b.now, For: 1}), fmt.Sprintf("vote %d", term+6))
	if st := b.m.Status()[0]; st.Role != Holder || st.Term != term {
		t.Fatalf("refused, it is %+v", st)
	}
	b.say("n3", 1, Entry{Kind: Grant, Term: term + 6, Sent: b.now, For: 1})
	if st := b.m.Status()[0]; st.Role != Holder || st.Term != term+6 {
		t.Errorf("voted for again, it is %+v", st)
	}
}

// Another live member with this one's name: both abstain.
func TestTwinsAbstain(t *testing.T) {
	b := newBench(t)
	b.elect()
	for b.now < 12*Profiles["default"].Lease {
		b.pass(10 * time.Millisecond)
		b.say("n2", 1, Entry{Kind: Ack, Term: b.m.contest(vip).held, Sent: b.now, For: 1})
		b.say("n1", 77)
	}
	if st := b.m.Status()[0]; st.Role != Abstaining || !strings.Contains(strings.Join(b.m.Problems(), "\n"), "same name") {
		t.Errorf("with a twin it is %+v, problems %q", st, b.m.Problems())
	}
}

// A profile changed at a restart: the promise forgotten may be as long as the old lease.
func TestRestartWaitsOutLongerLeaseOfOthers(t *testing.T) {
	m := machine(t, config("n1", 3))
	m.Step(time.Millisecond, Message{From: "n2", Incarnation: 1, Replicas: 3, Timing: Profiles["wan"]})
	if m.Next(); m.voteFrom != Profiles["wan"].Lease {
		t.Errorf("it votes from %v, although a member has leases of %v", m.voteFrom, Profiles["wan"].Lease)
	}
}

// A candidacy that fails frees the votes it got, or they would be lost for a lease.
func TestFailedCandidateReleasesItsVoters(t *testing.T) {
	b := newBench(t)
	c := b.m.contest(vip)
	for c.stage != standing {
		b.pass(time.Millisecond)
		b.say("n2", 1, Entry{Kind: Favour, Term: c.term + 1, For: 1})
	}
	bid := c.bid
	b.want("refusal by a newer term", b.say("n3", 1, Entry{Kind: Refuse, Term: bid + 3, For: 1}), fmt.Sprintf("release %d", bid))
	b.want("vote for another", b.say("n3", 1, Entry{Kind: Vote, Term: bid + 4, Sent: 1}), fmt.Sprintf("n3 grant %d", bid+4))
}
