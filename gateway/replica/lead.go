package replica

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/sallyport/sallyport/election"
	"github.com/sallyport/sallyport/election/gossip"
	"github.com/sallyport/sallyport/election/wire"
	"github.com/sallyport/sallyport/gateway/host"
	"github.com/sallyport/sallyport/vip"
)

// messenger is the gossip as the election needs it.
type messenger interface {
	Send(to string, payload []byte) error
	Broadcast(payload []byte) error
	Messages() <-chan gossip.Message
}

// electorate feeds the election machine with time and messages, and carries out
// what comes back.
type electorate struct {
	messenger messenger
	keeper    *keeper
	id        string
	now       func() time.Duration
	log       *slog.Logger
	vips      map[string]vip.VIP
	standing  <-chan standing // changes of what this replica may stand for
	turns     chan func()     // asked for by others
	ended     chan struct{}   // closed when nobody takes them any more
	electors  electors
	// moved is told of every VIP that a member has taken.
	moved func(v vip.VIP, here bool)
	// changed is told that some VIP has another holder or term; nil for nobody.
	changed func()

	mu          sync.Mutex
	machine     *election.Machine
	transitions map[string]map[string]uint64 // by VIP and reason
	chronicle   *election.Chronicle
	records     map[string]*election.Record
	metrics     *host.Metrics        // nil: nobody counts
	span        time.Duration        // of a lease
	turned      time.Duration        // the last turn of the loop
	strangers   map[string]time.Time // uninvited members, when last heard
}

// standing says whether this replica may hold a VIP now, and if not, why.
type standing struct {
	vip    string
	ok     bool
	reason string
}

func (e *electorate) run(ctx context.Context) error {
	defer close(e.ended)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			e.resign()
			return nil
		case <-timer.C:
			e.do(func(now time.Duration) election.Ready { return e.machine.Tick(now) })
		case m := <-e.messenger.Messages():
			message, err := wire.Decode(m.Payload)
			if !e.electors.has(m) {
				e.uninvited(m)
				continue
			}
			if err != nil || message.From != m.From {
				e.log.Debug("message ignored", "from", m.From, "address", m.Addr, "error", err)
				continue
			}
			e.do(func(now time.Duration) election.Ready { return e.machine.Step(now, message) })
		case turn := <-e.turns:
			turn()
		case s := <-e.standing:
			e.do(func(now time.Duration) election.Ready { return e.machine.SetEligible(now, s.vip, s.ok, s.reason) })
		}
		e.mu.Lock()
		next := e.machine.Next()
		e.mu.Unlock()
		timer.Reset(max(0, next-e.now()))
	}
}

// do makes one turn.
func (e *electorate) do(turn func(now time.Duration) election.Ready) {
	e.mu.Lock()
	now := e.now()
	e.turned = now
	ready := turn(now)
	for _, t := range ready.Transitions {
		if e.transitions[t.VIP] == nil {
			e.transitions[t.VIP] = map[string]uint64{}
		}
		e.transitions[t.VIP][t.Reason]++
		e.chronicle.Enter(t, time.Now())
		e.record(t.VIP).Enter(t, now)
	}
	for _, l := range ready.Leases {
		if left, renewed := e.record(l.VIP).Lease(l, now); renewed && e.metrics != nil {
			e.metrics.Renewed(l.VIP, left, e.span)
		}
	}
	e.mu.Unlock()
	// Before the messages: some say that a VIP was let go.
	for _, l := range ready.Leases {
		e.keeper.lease(e.vips[l.VIP], l.Until)
	}
	if e.changed != nil && len(ready.Transitions) > 0 {
		e.changed()
	}
	e.send(ready.Send)
	for _, t := range ready.Transitions {
		if t.To != "" {
			e.moved(e.vips[t.VIP], t.To == e.id)
		}
		e.log.Info("holder changed", "vip", t.VIP, "from", t.From, "to", t.To, "term", t.Term, "reason", t.Reason)
	}
}

// record of a VIP.
func (e *electorate) record(vip string) *election.Record {
	if e.records[vip] == nil {
		e.records[vip] = election.NewRecord(e.now())
	}
	return e.records[vip]
}

// describe adds what was recorded of a VIP to its status.
func (e *electorate) describe(name string, v *host.VIP) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now, record := e.now(), e.record(name)
	v.WithoutHolderSeconds = record.Without(now).Seconds()
	if last, ok := record.Last(); ok {
		v.Failover = &host.Failover{At: time.Now().Add(last.At - now), From: last.From, To: last.To, Reason: last.Reason, Seconds: last.Took.Seconds()}
	}
}

func (e *electorate) send(out []election.Outgoing) {
	for _, o := range out {
		payload, err := wire.Encode(o.Message)
		if err == nil && o.To == "" {
			err = e.messenger.Broadcast(payload)
		} else if err == nil {
			err = e.messenger.Send(o.To, payload)
		}
		if err != nil {
			e.log.Debug("message not sent", "to", o.To, "error", err)
		}
	}
}

// resign gives up what is held and frees the voters, so that a successor need not
// wait for the lease to end.
func (e *electorate) resign() {
	e.do(func(now time.Duration) election.Ready { return e.machine.ResignAll(now, "stopped") })
}

// status of every VIP, the transitions counted, and when the loop last turned.
func (e *electorate) status() ([]election.Status, map[string]map[string]uint64, time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	counts := make(map[string]map[string]uint64, len(e.transitions))
	for name, byReason := range e.transitions {
		counts[name] = map[string]uint64{}
		for reason, n := range byReason {
			counts[name][reason] = n
		}
	}
	return e.machine.Status(), counts, e.turned
}

// spells of a VIP that this member saw.
func (e *electorate) spells(addr netip.Addr) []election.Spell {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.chronicle.Of(addr.String())
}

// states of all VIPs.
func (e *electorate) states() []election.Status {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.machine.Status()
}

// state of one VIP as the election has it now.
func (e *electorate) state(addr netip.Addr) election.Status {
	for _, s := range e.states() {
		if s.VIP == addr.String() {
			return s
		}
	}
	return election.Status{}
}

// offer asks who else would hold the VIP.
func (e *electorate) offer(addr netip.Addr) {
	e.ask(func(now time.Duration) election.Ready { return e.machine.Offer(now, addr.String()) })
}

// handOver lets go of the VIP in favour of another, as soon as that one says that it would hold
// it. When it returns, the VIP is silent here.
func (e *electorate) handOver(ctx context.Context, addr netip.Addr, heir string) error {
	for {
		err := errors.New("the election has ended")
		e.ask(func(now time.Duration) (r election.Ready) {
			r, err = e.machine.HandOver(now, addr.String(), heir)
			return r
		})
		if err == nil || ctx.Err() != nil || e.state(addr).Role != election.Holder {
			return err
		}
		// It said so too long ago, or its answer was lost, and packets wait already.
		e.offer(addr)
		pause(ctx, offered/4)
	}
}

// bar keeps this replica from holding the VIP.
func (e *electorate) bar(addr netip.Addr, reason string) {
	e.ask(func(now time.Duration) election.Ready {
		return e.machine.SetEligible(now, addr.String(), false, reason)
	})
}

// ask has the loop take a turn, and returns when it is carried out, or never will be. Two
// turns at a time could carry out their leases in the wrong order.
func (e *electorate) ask(turn func(now time.Duration) election.Ready) {
	done := make(chan struct{})
	select {
	case e.turns <- func() { e.do(turn); close(done) }:
		<-done
	case <-e.ended:
	}
}

// awaitHolder waits until somebody else is seen to hold.
func (e *electorate) awaitHolder(ctx context.Context, addr netip.Addr) (string, error) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		if s := e.state(addr); s.Holder != "" {
			return s.Holder, nil
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("it was let go, and nobody was seen to take it: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

// since tells since when this replica holds the VIP of the address, if its lease lasts now.
func (e *electorate) since(addr netip.Addr) (since time.Duration, held bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, s := range e.machine.Status() {
		if v := e.vips[s.VIP]; slices.Contains(v.Addrs(), addr) {
			return s.Since, s.Role == election.Holder && s.Until > e.now()
		}
	}
	return 0, false
}

// uninvited notes a member that has no vote.
func (e *electorate) uninvited(m gossip.Message) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.strangers[m.From+" at "+m.Addr.String()] = time.Now()
}

// strangerFor is how long a member without a vote is named after it was last heard.
const strangerFor = 10 * time.Second

func (e *electorate) problems() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	problems := e.machine.Problems()
	for _, name := range slices.Sorted(maps.Keys(e.strangers)) {
		if time.Since(e.strangers[name]) > strangerFor {
			delete(e.strangers, name)
			continue
		}
		problems = append(problems, fmt.Sprintf(
			"gateway %s is not in %s and has no vote: list all --replicas gateways in %[2]s, the same on each, or stop it", name, e.electors.flag()))
	}
	return problems
}
