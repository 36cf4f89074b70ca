package stream_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sallyport/sallyport/e2e/lab"
	"github.com/sallyport/sallyport/flows"
	"github.com/sallyport/sallyport/flows/stream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	patience = 2 * time.Minute // of who shares two processors with other tests
	vip      = "192.0.2.10"
)

func key(secret string) []byte { sum := sha256.Sum256([]byte(secret)); return sum[:] }

func ring(t *testing.T, secrets ...string) *stream.Ring {
	t.Helper()
	var keys [][]byte
	for _, s := range secrets {
		keys = append(keys, key(s))
	}
	r, err := stream.NewRing(keys)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// table is a kernel of the test.
type table struct {
	mu   sync.Mutex
	has  map[flows.Key]flows.Flow
	gate chan struct{}         // Apply waits while it is not nil
	owed []flows.Change        // ends that were not told yet
	tell func(...flows.Change) // as the kernel does
}

// stop has it apply nothing until the returned function is called, or the test ends,
// for what waits for it is waited for then.
func (t *table) stop(tb testing.TB) (goOn func()) {
	gate := make(chan struct{})
	set := func(g chan struct{}) {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.gate = g
	}
	set(gate)
	goOn = sync.OnceFunc(func() {
		set(nil)
		close(gate)
	})
	tb.Cleanup(goOn)
	return goOn
}

func newTable() *table { return &table{has: map[flows.Key]flows.Flow{}} }

func (t *table) Flows() ([]flows.Flow, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []flows.Flow
	for _, f := range t.has {
		all = append(all, f)
	}
	return all, nil
}

func (t *table) Live() ([]flows.Flow, error) { return t.Flows() }

// Flush tells what a kernel tells late of Adopt: what has ended.
func (t *table) Flush(context.Context) error {
	t.mu.Lock()
	owed := t.owed
	t.owed = nil
	t.mu.Unlock()
	if len(owed) > 0 {
		t.tell(owed...)
	}
	return nil
}

func (t *table) Adopt(changes []flows.Change) error {
	t.mu.Lock()
	for _, c := range changes {
		if c.Op != flows.Put {
			t.owed = append(t.owed, flows.Change{Op: flows.Delete, Flow: c.Flow})
		}
	}
	t.mu.Unlock()
	return t.Apply(changes)
}

func (t *table) Apply(changes []flows.Change) error {
	t.mu.Lock()
	gate := t.gate
	t.mu.Unlock()
	if gate != nil {
		<-gate
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range changes {
		if c.Op == flows.Delete {
			delete(t.has, c.Flow.Key)
		} else {
			t.has[c.Flow.Key] = c.Flow
		}
	}
	return nil
}

func (t *table) copy() map[flows.Key]flows.Flow {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.has)
}

// holder is a member that holds the VIP.
type holder struct {
	t      *testing.T
	at     netip.AddrPort
	ring   *stream.Ring
	server *stream.Server
	feed   *stream.Feed
	table  *table
	lags   atomic.Int64
}

func hold(t *testing.T, r *stream.Ring, term uint64) *holder {
	t.Helper()
	began := time.Now()
	h := &holder{t: t, ring: r, table: newTable()}
	h.server = stream.NewServer(r, func() time.Duration { return time.Since(began) }, slog.New(slog.DiscardHandler))
	h.server.Lag = func(time.Duration) { h.lags.Add(1) }
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h.at = netip.MustParseAddrPort(free.Addr().String())
	_ = free.Close()
	h.feed = h.server.Lead(vip, term, flows.Position{Seq: 1}, h.table)
	h.table.tell = h.feed.Add
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.server.Run(ctx, h.at) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	await(t, func() error {
		c, err := net.Dial("tcp", h.at.String())
		if err == nil {
			_ = c.Close()
		}
		return err
	})
	return h
}

func await(t *testing.T, condition func() error) {
	t.Helper()
	if err := lab.Await(patience, condition); err != nil {
		t.Fatal(err)
	}
}

func flow(n int) flows.Flow {
	return flows.Flow{Key: flows.Key{
		Src: netip.AddrFrom4([4]byte{10, 244, byte(n >> 8), byte(n)}), Dst: netip.MustParseAddr("203.0.113.5"),
		SrcPort: uint16(n), DstPort: 443, Protocol: 6,
	}, Port: uint16(n), State: 3}
}

func (h *holder) change(op flows.Op, n int) {
	c := flows.Change{Op: op, Flow: flow(n)}
	if err := h.table.Apply([]flows.Change{c}); err != nil {
		h.t.Fatal(err)
	}
	h.feed.Add(c)
}

// following runs one stream after the other until the test ends, as a gateway does.
type following struct {
	*stream.Following
	table *table
	errs  chan error // of the streams that ended
}

func follow(t *testing.T, h *holder, name string, term uint64, r *stream.Ring) *following {
	t.Helper()
	w := follower(h, name, term, r)
	w.run(t)
	return w
}

func follower(h *holder, name string, term uint64, r *stream.Ring) *following {
	w := &following{table: newTable(), errs: make(chan error, 1000)}
	w.Following = &stream.Following{Ring: r, Name: name, VIP: vip, Term: term, At: h.at, Table: w.table}
	return w
}

func (w *following) run(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			err := w.Run(ctx)
			w.Have = w.Position()
			select {
			case w.errs <- err:
			default:
			}
			select {
			case <-ctx.Done():
			case <-time.After(5 * time.Millisecond):
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
}

// ended is why the next stream ends.
func (w *following) ended(t *testing.T) (err error) {
	t.Helper()
	await(t, func() error {
		select {
		case err = <-w.errs:
			return nil
		default:
			return fmt.Errorf("the stream of %s goes on", w.Name)
		}
	})
	return err
}

func (w *following) equals(h *holder) func() error {
	return func() error {
		if got, want := w.table.copy(), h.table.copy(); !maps.Equal(got, want) {
			return fmt.Errorf("%s has %d flows, the holder %d", w.Name, len(got), len(want))
		}
		for _, s := range h.feed.Feedback().Standbys {
			if s.Name == w.Name && s.CaughtUp {
				return nil
			}
		}
		return fmt.Errorf("%s is not caught up as the holder sees it", w.Name)
	}
}

func TestStandbysHaveWhatTheHolderHas(t *testing.T) {
	h := hold(t, ring(t, "a"), 4)
	for n := range 3000 { // several parts of a snapshot
		h.change(flows.Put, n)
	}
	a := follow(t, h, "a", 4, h.ring)
	await(t, a.equals(h))
	b := follow(t, h, "b", 3, h.ring) // its election has not heard of term 4 yet
	b.table.has[flow(9999).Key] = flow(9999)
	for n := range 2000 {
		h.change(flows.Delete, n)
		h.change(flows.Put, 5000+n)
	}
	await(t, a.equals(h))
	await(t, b.equals(h))
	if h.lags.Load() == 0 {
		t.Error("no lag was measured")
	}
	h.feed.Reset() // events were missed: what changed meanwhile was told to nobody
	missed := flow(7777)
	if err := h.table.Apply([]flows.Change{{Op: flows.Put, Flow: missed}}); err != nil {
		t.Fatal(err)
	}
	h.feed.Reset()
	await(t, a.equals(h))
	await(t, b.equals(h))
}

// A standby that is stopped costs the others nothing, and the holder a bounded
// memory; when it goes on it catches up by a snapshot.
func TestAStoppedStandbyHurtsNobody(t *testing.T) {
	h := hold(t, ring(t, "a"), 1)
	slow, fast := follow(t, h, "slow", 1, h.ring), follow(t, h, "fast", 1, h.ring)
	await(t, slow.equals(h))
	await(t, fast.equals(h))
	goOn := slow.table.stop(t)
	before := h.feed.Feedback().Snapshots
	cut := func() bool { // it lacks more than it lags by, or its stream ended
		return !slices.ContainsFunc(h.feed.Feedback().Standbys, func(s stream.Standby) bool { return s.Name == "slow" && s.Complete })
	}
	for round := 0; !cut(); round++ {
		if round == 200 {
			t.Fatal("one that does not read is never cut")
		}
		for n := range 20000 {
			f := flow(n)
			f.Port, f.Mark = uint16(n*31+round*977), uint32(n*2654435761+round*40503)
			c := flows.Change{Op: flows.Put, Flow: f}
			_ = h.table.Apply([]flows.Change{c})
			h.feed.Add(c)
		}
		await(t, fast.equals(h))
		if kept := h.feed.Feedback().Kept; kept > 8<<20 {
			t.Fatalf("%d bytes are kept for one that does not read", kept)
		}
	}
	goOn()
	await(t, slow.equals(h))
	await(t, fast.equals(h))
	if h.feed.Feedback().Snapshots == before {
		t.Error("the slow standby got no snapshot: nothing was cut")
	}
}

// A hand-over waits for the heir, and for no other: with what is told to it alone it is not caught up.
func TestAwaitIsForOneStandbyWithEverything(t *testing.T) {
	h := hold(t, ring(t, "a"), 1)
	slow, fast := follow(t, h, "slow", 1, h.ring), follow(t, h, "fast", 1, h.ring)
	await(t, slow.equals(h))
	await(t, fast.equals(h))
	goOn := slow.table.stop(t)
	h.change(flows.Put, 1)
	await(t, fast.equals(h))
	over, end := context.WithCancel(t.Context())
	end() // who has not caught up by now, has not at all
	if err := h.feed.Await(over, "fast"); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"slow", "nobody"} {
		if err := h.feed.Await(over, name); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	done := make(chan error)
	go func() { done <- h.feed.Await(t.Context(), "slow") }()
	goOn()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n := len(slow.table.copy()); n != 1 {
		t.Errorf("the heir is said to have everything and has %d flows", n)
	}
}

func TestOnlyMembersOfTheKeyAreHeard(t *testing.T) {
	h := hold(t, ring(t, "ours"), 1)
	h.change(flows.Put, 1)
	stranger := follow(t, h, "stranger", 1, ring(t, "theirs"))
	if err := stranger.ended(t); err == nil || !strings.Contains(err.Error(), "key") {
		t.Errorf("a stranger's stream ended with %v, want it to name the key", err)
	}
	// The other way round: a member is not taken in by a stranger's holder.
	impostor := hold(t, ring(t, "theirs"), 9)
	impostor.change(flows.Put, 666)
	member := follow(t, impostor, "member", 1, ring(t, "ours"))
	for range 3 {
		_, _ = member.ended(t), stranger.ended(t)
	}
	if n, m := len(member.table.copy()), len(stranger.table.copy()); n != 0 || m != 0 {
		t.Errorf("%d flows were taken from a stranger, %d were given to one", n, m)
	}
	plain, err := net.Dial("tcp", h.at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	if _, err := plain.Write(flows.Encode(flows.Message{Kind: flows.Hello, Name: "plain", VIP: vip, Term: 1})); err != nil {
		t.Fatal(err)
	}
	_ = plain.SetReadDeadline(time.Now().Add(patience))
	buf := make([]byte, 1<<10)
	var got []byte
	for err == nil {
		var n int
		n, err = plain.Read(buf)
		got = append(got, buf[:n]...)
	}
	if errors.Is(err, context.DeadlineExceeded) || len(got) > 64 {
		t.Errorf("to one without a key it answers %x, %v", got, err)
	}
}

func TestKeysChangeWithoutALoss(t *testing.T) {
	h := hold(t, ring(t, "old"), 1)
	w := follow(t, h, "a", 1, ring(t, "old"))
	n := 0
	for _, step := range []struct {
		ring *stream.Ring
		keys []string
	}{
		{h.ring, []string{"old", "new"}}, {w.Ring, []string{"old", "new"}},
		{w.Ring, []string{"new", "old"}}, {h.ring, []string{"new", "old"}},
		{h.ring, []string{"new"}}, {w.Ring, []string{"new"}},
	} {
		var keys [][]byte
		for _, s := range step.keys {
			keys = append(keys, key(s))
		}
		if err := step.ring.Set(keys); err != nil {
			t.Fatal(err)
		}
		n++
		h.change(flows.Put, n)
		await(t, w.equals(h))
	}
	old := follow(t, h, "old", 1, ring(t, "old"))
	if err := old.ended(t); err == nil {
		t.Error("a key that was taken away is still accepted")
	}
}

func TestNobodyFollowsAHolderOfAnEarlierTerm(t *testing.T) {
	h := hold(t, ring(t, "a"), 4)
	h.change(flows.Put, 1)
	w := follow(t, h, "a", 5, h.ring)
	for range 3 {
		if err := w.ended(t); err == nil {
			t.Error("the stream ended without a reason")
		}
	}
	if n := len(w.table.copy()); n != 0 {
		t.Errorf("%d flows were taken of term 4, with term 5 known", n)
	}
	h.server.Retire(vip)
	h.feed = h.server.Lead(vip, 5, flows.Position{Seq: 1}, h.table)
	await(t, w.equals(h))
	// Elected again with nobody between: the stream goes on.
	before := h.feed.Feedback().Snapshots
	h.feed.Raise(6)
	h.change(flows.Put, 2)
	await(t, w.equals(h))
	if n := h.feed.Feedback().Snapshots; n != before {
		t.Errorf("%d snapshots more after another term of the same holder", n-before)
	}
	h.server.Retire(vip)
	await(t, func() error {
		if w.Synced() {
			return errors.New("it believes to be in step with nobody")
		}
		return nil
	})
}

func TestAnAddressThatCannotBeListenedOn(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	for at, cure := range map[string]string{
		"192.0.2.99:7965":     "--node-ip",
		taken.Addr().String(): "--flows-port",
	} {
		s := stream.NewServer(ring(t, "k"), func() time.Duration { return 0 }, slog.New(slog.DiscardHandler))
		err := s.Run(t.Context(), netip.MustParseAddrPort(at))
		if err == nil || !strings.Contains(err.Error(), cure) || !strings.Contains(err.Error(), at) {
			t.Errorf("%s: %v, want %s named", at, err, cure)
		}
	}
}
