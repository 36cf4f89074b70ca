// Package gossip carries small datagrams between the replicas of a gateway,
// encrypted, and knows which replicas there are. It is memberlist underneath, with
// what an election needs on top: a message goes to every peer ever known, whatever
// memberlist thinks of its health, so that the two halves of a partition hear each
// other with the first datagram after it heals; halves re-join within seconds; and
// what a user got wrong (keys, names, addresses) is named.
//
// Delivery is best effort and not in order: memberlist hands over the newest
// datagram first when several wait.
package gossip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

// Gossip is one member. New starts nothing; Run does.
type Gossip struct {
	cfg     Config
	log     *slog.Logger
	keyring *memberlist.Keyring
	network network
	started time.Time
	began   atomic.Bool
	ready   chan struct{}
	inbox   chan Message
	wake    chan struct{} // a peer that memberlist thinks dead was heard: join it now
	lines   *lines
	list    atomic.Pointer[memberlist.Memberlist]

	// keys is held for reading while a message is encrypted, so that a change of
	// keys is never seen half done.
	keys sync.RWMutex

	// mu guards what follows. memberlist calls in with its own locks held, so
	// nothing of memberlist may be called while holding it.
	mu       sync.Mutex
	book     book
	names    names
	problems problems
	// unresolved are the Join host names that cannot be looked up now.
	unresolved map[string]Problem

	counts counters
}

// Message is a payload from another member.
type Message struct {
	From    string         // the sender's name; only holders of the key could write it
	Addr    netip.AddrPort // where the sender says it listens
	At      time.Duration  // arrival, CLOCK_BOOTTIME
	Payload []byte
}

// ErrNotRunning is returned by Send and Broadcast before Run has bound its sockets
// and after it has ended.
var ErrNotRunning = errors.New("gossip is not running")

// New checks the configuration and prepares a member.
func New(cfg Config) (*Gossip, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	keyring, err := memberlist.NewKeyring(clone(cfg.Keys), cfg.Keys[0])
	if err != nil {
		return nil, fmt.Errorf("install gossip keys: %w", err)
	}
	now := time.Now()
	g := &Gossip{
		cfg:      cfg,
		log:      cfg.Log,
		keyring:  keyring,
		network:  host{},
		started:  now,
		ready:    make(chan struct{}),
		inbox:    make(chan Message, cfg.Queue),
		wake:     make(chan struct{}, 1),
		book:     newBook(cfg.Name, cfg.Bind),
		names:    newNames(cfg.Bind, now),
		problems: newProblems(),

		unresolved: map[string]Problem{},
	}
	g.lines = newLines(cfg.Log, g.noteLine)
	for _, j := range cfg.Join {
		if addr, ok := literal(j, cfg.Bind.Port()); ok {
			g.book.addJoin(addr, now)
		}
	}
	return g, nil
}

// Run takes part until ctx ends, then leaves gracefully, which takes no longer than
// LeaveTimeout. It needs no peer to answer. Its sockets, connections and own
// goroutines are gone when it returns; memberlist gives no way to wait for its
// timers, which find closed sockets and end within one probe interval.
func (g *Gossip) Run(ctx context.Context) error {
	if g.began.Swap(true) {
		return errors.New("run gossip: it has been run before; make a new one")
	}
	tr, err := listen(g.network, g.cfg.Bind, &g.counts)
	if err != nil {
		return err
	}
	list, err := memberlist.Create(g.memberlistConfig(tr))
	if err != nil {
		return errors.Join(fmt.Errorf("start gossip on %s: %w", g.cfg.Bind, err), tr.Shutdown())
	}

	var tasks sync.WaitGroup
	linesCtx, endLines := context.WithCancel(context.WithoutCancel(ctx))
	tasks.Go(func() { g.lines.drain(linesCtx) })
	g.list.Store(list)
	close(g.ready)
	g.log.Info("gossip started", "name", g.cfg.Name, "address", g.cfg.Bind.String(), "key", Fingerprint(g.keyring.GetPrimaryKey()))

	g.rejoin(ctx, list, &tasks)

	g.leave(list)
	g.list.Store(nil)
	err = list.Shutdown() // closes the connections of joins under way too
	endLines()
	tasks.Wait()
	return err
}

// Ready is closed once the sockets are bound: from then on the member sends and hears.
func (g *Gossip) Ready() <-chan struct{} { return g.ready }

func (g *Gossip) String() string { return "gossip " + g.cfg.Name }

// leave tells the others. A leave that nobody confirms in time is no error: the
// others find out by probing.
func (g *Gossip) leave(list *memberlist.Memberlist) {
	if g.muted() {
		// The name is another member's: a farewell would have that one buried.
		return
	}
	err := errors.Join(g.broadcast(leaving, nil), list.Leave(g.cfg.LeaveTimeout))
	if err != nil {
		g.log.Debug("leave gossip", "error", err)
	}
}

func (g *Gossip) memberlistConfig(tr *transport) *memberlist.Config {
	c := memberlist.DefaultLANConfig()
	c.Name = g.cfg.Name
	// Members of another protocol are discarded by label, before decryption, and named.
	c.Label = label
	c.Transport = tr
	c.BindAddr, c.BindPort = g.cfg.Bind.Addr().String(), int(g.cfg.Bind.Port())
	c.AdvertiseAddr, c.AdvertisePort = c.BindAddr, c.BindPort
	c.Logger = g.lines.logger()
	c.Keyring = g.keyring

	c.ProbeInterval, c.ProbeTimeout = g.cfg.ProbeInterval, g.cfg.ProbeTimeout
	c.SuspicionMult, c.SuspicionMaxTimeoutMult = g.cfg.SuspicionMult, 1
	c.AwarenessMaxMultiplier = 2
	c.GossipInterval = 50 * time.Millisecond
	c.GossipToTheDeadTime = g.cfg.GossipToTheDead
	c.DeadNodeReclaimTime = time.Millisecond
	c.TCPTimeout = time.Second
	c.PushPullInterval = 15 * time.Second
	// Compression would run LZW over every heartbeat, to save nothing.
	c.EnableCompression = false

	c.Delegate, c.Events, c.Conflict, c.Ping = delegate{g}, delegate{g}, delegate{g}, delegate{g}
	return c
}

// SetKeys replaces the key ring while running; the first key encrypts, all decrypt.
// To change keys without losing a message, every member first accepts the new key
// (old, new), then uses it (new, old), then drops the old one (new).
func (g *Gossip) SetKeys(keys [][]byte) error {
	if err := validateKeys(keys); err != nil {
		return fmt.Errorf("change gossip keys: %w", err)
	}
	g.keys.Lock()
	defer g.keys.Unlock()
	before := g.keyring.GetPrimaryKey()
	if err := replaceKeys(g.keyring, clone(keys)); err != nil {
		return fmt.Errorf("change gossip keys: %w", err)
	}
	g.log.Info("gossip keys changed", "from", Fingerprint(before), "to", Fingerprint(keys[0]), "accepted", len(keys))
	return nil
}

// KeyFingerprint tells members' primary keys apart without giving them away.
func (g *Gossip) KeyFingerprint() string { return Fingerprint(g.keyring.GetPrimaryKey()) }

// Problems are what keeps members apart now, sorted; a problem that ceases is gone
// from the list some seconds later.
func (g *Gossip) Problems() []Problem {
	now := time.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.currentProblems(now)
}
