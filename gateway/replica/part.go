package replica

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sallyport/sallyport/election"
	"github.com/sallyport/sallyport/election/priority"
	"github.com/sallyport/sallyport/flows"
	"github.com/sallyport/sallyport/flows/conntrack"
	"github.com/sallyport/sallyport/flows/stream"
	"github.com/sallyport/sallyport/gateway/host"
)

// part is a replica's part in one VIP's connections: it tells, or it follows.
type part struct {
	mirror *mirror
	scope  conntrack.Scope
	kick   chan struct{}
	log    *slog.Logger
	news   []flows.Change // of a batch of events

	feed  atomic.Pointer[stream.Feed] // while this replica holds
	again chan struct{}               // it was elected once more

	mu        sync.Mutex
	following *stream.Following // while another holds
	bytes     uint64            // of earlier streams
	snapshots uint64
	failing   string         // why the last stream ended
	since     time.Time      // from when on it has been so
	have      flows.Position // what this kernel has of what holders told
	whole     bool           // it lacks nothing up to there
	lacking   bool           // this kernel refused some of it
	refused   uint64         // entries that this kernel did not take
	refusal   string         // the last reason
	refusedAt time.Time
}

// role of a replica in respect of one VIP's connections.
type role struct {
	holder string
	term   uint64
}

// run follows the election until the context ends.
func (p *part) run(ctx context.Context) error {
	var now role
	adrift := false // it held, and nobody is known to hold
	end := func() {}
	defer func() { end() }()
	// The election says when it changes; this is for the address of a holder.
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		s := p.mirror.state(p.scope.VIP)
		want := role{s.Holder, s.Term}
		switch feed := p.feed.Load(); {
		case want.holder == "" || want.holder == p.mirror.name && s.Role != election.Holder:
			// Nobody has the connections now, as far as is known here.
			if now.holder == p.mirror.name && !adrift {
				adrift = true
				p.mirror.audit.adrift(p.scope.VIP)
			}
		case want.holder != now.holder:
			end()
			end, now, adrift = p.begin(ctx, want), want, false
		case want.term > now.term && feed != nil:
			feed.Raise(want.term)
			now = want
			select {
			case p.again <- struct{}{}:
			default:
			}
		}
		if adrift && want.holder == p.mirror.name && s.Role == election.Holder {
			adrift = false
			p.mirror.audit.holds(p.scope.VIP, want.holder)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-p.kick:
		case <-ticker.C:
		}
	}
}

// begin takes a role, until end is called, which returns when nothing of it runs.
func (p *part) begin(ctx context.Context, r role) (end func()) {
	p.mirror.audit.holds(p.scope.VIP, r.holder)
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	if r.holder == p.mirror.name {
		// From here on events are told; snapshots have what was before.
		whole := p.isWhole()
		feed := p.mirror.server.Lead(p.scope.VIP.String(), r.term, p.position(), held{p})
		p.feed.Store(feed)
		running.Go(func() {
			wait := time.Duration(0)
			if whole { // what came with a stream is liberal, and its timeouts are only too long
				wait = restoreLate
			}
			for pause(ctx, wait) {
				next := time.Now().Add(restoreLate)
				priority.Ordinary(func() { p.takeOver(ctx) })
				select {
				case <-ctx.Done():
					return
				case <-p.again: // another may have held meanwhile, unheard of here
					wait = time.Until(next)
				}
			}
		})
		return func() {
			p.feed.Store(nil)
			p.mirror.server.Retire(p.scope.VIP.String())
			cancel()
			running.Wait()
			b, have := feed.Feedback(), feed.Position()
			p.mu.Lock()
			defer p.mu.Unlock()
			p.have = have
			p.bytes, p.snapshots = p.bytes+b.Bytes, p.snapshots+b.Snapshots
		}
	}
	running.Go(func() { priority.Ordinary(func() { p.follow(ctx, r) }) })
	return func() {
		p.mu.Lock()
		p.whole = p.whole && (p.failing == "" || time.Since(p.since) < patient)
		p.mu.Unlock()
		cancel()
		running.Wait()
	}
}

func (p *part) position() flows.Position {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.have
}

func (p *part) isWhole() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.whole
}

// takeOver makes the entries here those of a holder.
func (p *part) takeOver(ctx context.Context) {
	began := time.Now()
	switch n, err := restore(ctx, p.scope, p.mirror.timeouts); {
	case err == nil:
		p.log.Info("connections taken over", "changed", n, "took_ms", time.Since(began).Milliseconds())
	case ctx.Err() == nil:
		p.log.Error("not all connections taken over have ordinary timeouts", "error", err)
	}
}

// Reading the kernel's table holds up packets for milliseconds, wherever it is done:
// not in the moment in which those that waited for a VIP are let go, for one
// standby after the other, and not all the time where elections follow each other.
const (
	followSoon  = 50 * time.Millisecond
	followApart = 100 * time.Millisecond
	restoreLate = time.Second
)

// pause tells whether it was to its end.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

const (
	retryFirst = 50 * time.Millisecond
	retryMost  = 2 * time.Second
)

// follow has one stream after the other until the role ends.
func (p *part) follow(ctx context.Context, r role) {
	w, err := conntrack.NewWriter()
	if err != nil {
		p.log.Error("connections are not replicated to this gateway", "error", err)
		return
	}
	defer w.Close()
	retry := retryFirst
	p.mu.Lock()
	whole := p.whole && !p.lacking
	p.lacking = false
	p.failing, p.since, p.whole = "the first snapshot has not arrived", time.Now(), false
	p.mu.Unlock()
	pause(ctx, p.mirror.turn(r.holder))
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.failing = ""
	}()
	for ctx.Err() == nil {
		at, err := p.mirror.address(r.holder)
		if err == nil {
			s := &stream.Following{
				Ring: p.mirror.ring, Name: p.mirror.name, VIP: p.scope.VIP.String(), Term: r.term, At: at,
				Table: &table{part: p, writer: w}, Have: p.position(), Whole: whole, InStep: func() {
					retry = retryFirst
					p.inStep(r.holder)
					p.mirror.audit.settled(ctx, p.scope.VIP)
				},
			}
			p.set(s)
			err = s.Run(ctx)
			p.set(nil)
			p.mu.Lock()
			p.bytes, p.have = p.bytes+s.Bytes(), s.Position()
			p.mu.Unlock()
		}
		if ctx.Err() != nil {
			return
		}
		p.failed(r.holder, err)
		p.mirror.audit.unsettled(p.scope.VIP)
		pause(ctx, retry)
		retry = min(2*retry, retryMost)
	}
}

func (p *part) set(s *stream.Following) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.following = s
}

func (p *part) inStep(holder string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.log.Info("in step with the holder's connections", "holder", holder, "took_ms", time.Since(p.since).Milliseconds())
	p.failing, p.whole = "", true
}

func (p *part) failed(holder string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failing == "" {
		p.since = time.Now()
	}
	p.failing = err.Error()
	p.log.Debug("the stream of connections is begun anew", "holder", holder, "error", err)
}

// patient is how long a stream may be down before it is a problem, and how long a
// refusal of the kernel is named.
const patient = 10 * time.Second

func (p *part) trouble() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.failing != "" && time.Since(p.since) > patient:
		return "its connections are not replicated to this gateway: " + p.failing
	case !p.refusedAt.IsZero() && time.Since(p.refusedAt) < patient:
		return fmt.Sprintf("this kernel refused %d of its connections, the last one: %s", p.refused, p.refusal)
	}
	return ""
}

func (p *part) refuse(n int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refused += uint64(n)
	p.lacking = true
	p.refusal, _, _ = strings.Cut(err.Error(), "\n")
	if time.Since(p.refusedAt) > patient {
		p.log.Warn("the kernel refuses replicated connections", "error", p.refusal)
	}
	p.refusedAt = time.Now()
}

func (p *part) replication() host.Replication {
	p.mu.Lock()
	r := host.Replication{Bytes: p.bytes, Snapshots: p.snapshots, Refused: p.refused}
	if p.following != nil {
		r.InStep, r.Bytes = p.following.Synced(), r.Bytes+p.following.Bytes()
	}
	p.mu.Unlock()
	if f := p.feed.Load(); f != nil {
		b := f.Feedback()
		r.Bytes, r.Snapshots = r.Bytes+b.Bytes, r.Snapshots+b.Snapshots
		for _, s := range b.Standbys {
			r.Standbys = append(r.Standbys, host.Standby{Name: s.Name, InStep: s.Complete, LagSeconds: s.Lag.Seconds()})
		}
		slices.SortFunc(r.Standbys, func(a, b host.Standby) int { return strings.Compare(a.Name, b.Name) })
	}
	return r
}
