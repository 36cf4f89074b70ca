// Package replica runs one gateway: it takes part in the election, claims the VIPs
// it wins, and keeps translation rules, tunnel and routes equal to the view, so
// that it can take over at any moment. When it stops it releases its VIPs and
// leaves the rules in place.
package replica

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sallyport/sallyport/allowlist"
	"github.com/sallyport/sallyport/allowlist/endpoint"
	"github.com/sallyport/sallyport/election"
	"github.com/sallyport/sallyport/election/boottime"
	"github.com/sallyport/sallyport/election/gossip"
	"github.com/sallyport/sallyport/election/priority"
	"github.com/sallyport/sallyport/gateway"
	"github.com/sallyport/sallyport/gateway/host"
	"github.com/sallyport/sallyport/gateway/page"
	"github.com/sallyport/sallyport/gateway/reconcile"
	"github.com/sallyport/sallyport/snat"
	"github.com/sallyport/sallyport/tunnel"
	"github.com/sallyport/sallyport/tunnel/vxlan"
	"github.com/sallyport/sallyport/vip"
	"github.com/sallyport/sallyport/vip/layer2"
)

// Config of a gateway replica.
type Config struct {
	Version  string
	NodeName string     // as in the Node object
	NodeIP   netip.Addr // the node's tunnel end
	VIPs     []vip.VIP
	Replicas int // how many gateways there are meant to be, the same on all of them
	// Members names all gateways where that is known: then nobody else has a vote.
	Members []string
	Timing  string
	// Priority is how the process gets before others.
	Priority priority.Way
	Gossip   gossip.Config
	Peers    Peers  // where the gossip's other members are found besides its Join; nil: nowhere
	KeyFile  string // read again every few seconds: keys are changed while running
	SNAT     snat.Config
	// Internal are ranges that no route takes, besides those of nodes, pods and VIPs.
	Internal  []netip.Prefix
	Netfilter string
	HTTP      string
	TokenFile string // lets who has its token see on HTTP what this host may; "": nobody
	StateDir  string
	Reporter  Reporter // nil: nobody is told
	// Allowlist is where what partners must admit is served to them; "": on HTTP only.
	Allowlist string
	// FlowsPort is where connections are replicated, the same on all; 0: they are not.
	FlowsPort uint16
	// Audit of connections, which rests on their replication; nil: there is none.
	Audit *Audit
	// HandoverTimeout is how long a VIP waits for a successor before it is released.
	HandoverTimeout time.Duration
	FastPath        bool // established connections go beside netfilter, where the kernel can
}

// Peers finds the hosts of all gateways.
type Peers interface {
	Run(ctx context.Context, set func([]netip.Addr)) error
	// Problems are why they are not found now.
	Problems() []gateway.Problem
}

// Replica is one gateway.
type Replica struct {
	cfg      Config
	log      *slog.Logger
	metrics  *host.Metrics
	applied  *host.Applied
	started  time.Time
	priority string
	raised   bool
	lease    time.Duration

	view   *host.View
	loop   *reconcile.Loop
	tunnel *vxlan.Applier
	filter *host.Filter
	clash  *host.Clashes

	gossip     *gossip.Gossip
	host       *layer2.Host
	fence      *layer2.Fence
	announcer  *layer2.Announcer
	relay      *layer2.Relay
	handovers  handovers
	keeper     *keeper
	electorate *electorate
	watch      *watch
	conflicts  *conflicts

	mu       sync.Mutex
	plan     gateway.Plan
	problems []gateway.Problem
	admitted *allowlist.List // nil before the first view
	outcome  outcome
	wanted   *wanted          // nil before the first view
	standing gateway.Standing // nil before the first view
	pods     []gateway.Pod    // that it is of
	ended    gateway.Standing // whose addresses were that were not swept yet; nil before the first sweep
	swept    time.Time
	dirty    bool            // something has ended and waits to be swept
	routes   map[uint16]bool // of the plan before

	moves     chan move
	allowlist *endpoint.Endpoint
	page      *page.Page
	mirror    *mirror // nil: connections are not replicated
	census    *census
	fast      *fastPath
}

// New starts nothing, but for the process's priority.
func New(ctx context.Context, cfg Config, source host.Source, log *slog.Logger) (*Replica, error) {
	timing, ok := election.Profiles[cfg.Timing]
	if !ok {
		return nil, fmt.Errorf("--timing %s: choose default, fast or wan", cfg.Timing)
	}
	if cfg.Replicas%2 == 0 {
		log.Warn(evenReplicas(cfg.Replicas))
	}
	metrics := host.NewMetrics()
	r := &Replica{cfg: cfg, log: log, metrics: metrics, applied: host.NewApplied(metrics), started: time.Now(), lease: timing.Lease, moves: make(chan move, 64)}
	var err error
	if r.filter, err = host.OpenFilter(ctx, cfg.Netfilter, snat.TableName, log); err != nil {
		return nil, err
	}
	if r.tunnel, err = vxlan.New(cfg.SNAT.Tunnel, log); err != nil {
		return nil, err
	}
	if r.gossip, err = gossip.New(cfg.Gossip); err != nil {
		return nil, err
	}
	r.clash = host.NewClashes(cfg.SNAT.Tunnel.Marks, cfg.SNAT.Zone, r.tunnel, log)
	r.allowlist = endpoint.New(r.admits)
	r.page = page.New(r.see)
	r.loop = reconcile.New("gateway", log, r.reconcile)
	r.view = host.NewView(source, cfg.StateDir, "gateway", r.loop.Kick, log)
	if r.host, err = layer2.Open(); err != nil {
		return nil, err
	}
	if r.fence, err = layer2.NewFence(r.host); err != nil {
		return nil, err
	}
	r.announcer = layer2.NewAnnouncer(r.host, r.fence, log)
	r.keeper = newKeeper(r.fence, r.announcer, boottime.Now, log)

	names := make([]string, 0, len(cfg.VIPs))
	for _, v := range cfg.VIPs {
		names = append(names, v.Addr.String())
	}
	electors, err := cfg.electors()
	if err != nil {
		return nil, err
	}
	seed := incarnation()
	machine, err := election.New(election.Config{
		ID: cfg.Gossip.Name, Incarnation: seed, Seed: seed, Replicas: cfg.Replicas, Voters: electors.names, Timing: timing, VIPs: names,
	}, boottime.Now())
	if err != nil {
		return nil, err
	}
	r.watch = newWatch(r.host, cfg.VIPs, r.guard, log)
	r.keeper.unfit, r.keeper.mend = r.watch.bar, r.putUpFence
	r.electorate = &electorate{
		messenger: r.gossip, keeper: r.keeper, now: boottime.Now, log: log, vips: r.watch.vips(),
		standing: r.watch.changes, turns: make(chan func()), ended: make(chan struct{}), machine: machine, transitions: map[string]map[string]uint64{},
		id: cfg.Gossip.Name, electors: electors, moved: r.moved, strangers: map[string]time.Time{},
		chronicle: election.NewChronicle(names, spellsKept, r.started), changed: r.page.Changed,
		records: map[string]*election.Record{}, metrics: metrics, span: timing.Span(),
	}
	r.census = newCensus(cfg.SNAT, log)
	if cfg.FlowsPort != 0 {
		if r.mirror, err = newMirror(cfg, r.electorate.states, r.gossip.Members, metrics, log); err != nil {
			return nil, err
		}
		r.electorate.changed = func() { r.mirror.changed(); r.page.Changed() }
	}
	if r.relay, err = layer2.NewRelay(r.host, r.watch.holdable(), cfg.SNAT.Tunnel.Port, log); err != nil {
		return nil, err
	}
	if r.fast, err = newFastPath(cfg, r.watch.holdable(), r.fence, log); err != nil {
		return nil, err
	}
	r.conflicts = &conflicts{
		host: r.host, vips: r.watch.holdable(), since: r.electorate.since, now: boottime.Now, defend: r.announcer.Defend, log: log,
		seen: map[string]layer2.Conflict{}, counts: map[netip.Addr]uint64{}, defences: map[netip.Addr]*vip.Defence{},
	}
	r.keeper.claimed = r.conflicts.probe
	for _, name := range names {
		r.electorate.record(name)
		metrics.Holds(name)
	}
	if r.priority, r.raised = priority.Raise(cfg.Priority); r.raised {
		log.Info("priority", "in_force", r.priority)
	} else {
		log.Warn("the process is not before others as it should be: on a busy host it may miss heartbeats and lose its VIPs without need; give it CAP_SYS_NICE, for --priority realtime in a cgroup with real time, or choose --timing default", "in_force", r.priority)
	}
	return r, nil
}

// Run serves until the context ends. It returns when the VIPs are released and
// everything it started has ended.
func (r *Replica) Run(ctx context.Context) error {
	all := vip.Addrs(r.cfg.VIPs)
	defer r.host.Close()
	defer r.fence.Stop()
	defer r.relay.Stop()
	defer r.announcer.Close()
	defer r.fast.close()
	// Nothing is held yet, and other hosts' packets may pass here.
	var err error
	priority.Ordinary(func() { err = r.fence.Install(ctx, all, r.lease) })
	if err != nil {
		return err
	}
	stale, err := r.host.Reap(all)
	if err != nil {
		return fmt.Errorf("remove VIPs that an earlier run left on this host: %w", err)
	}
	if len(stale) > 0 {
		r.log.Warn("removed VIPs that an earlier run left on this host", "vips", stale)
	}
	if err := r.relay.Remove(); err != nil {
		return err
	}
	// What was begun ends when nothing is left to hand over.
	stopped, ctx := ctx, context.WithoutCancel(ctx)
	ctx, leave := context.WithCancel(ctx)
	defer leave()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer leave()
		select {
		case <-ctx.Done():
		case <-stopped.Done():
			r.leave(ctx)
		}
		return nil
	})
	// Gossip and keeper outlive the election, which says farewell through them.
	after, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	g.Go(func() error {
		err, port := r.gossip.Run(after), r.cfg.Gossip.Bind.Port()
		return host.PortTaken(host.PortTaken(err, "udp", port), "tcp", port)
	})
	if r.cfg.Peers != nil {
		g.Go(func() error { return r.cfg.Peers.Run(ctx, r.gossip.SetPeers) })
	}
	g.Go(func() error { return r.keeper.run(after) })
	g.Go(func() error { return r.host.WatchGone(after, vip.Addrs(r.watch.holdable()), r.log, r.keeper.present) })
	g.Go(func() error {
		defer end()
		return r.electorate.run(ctx)
	})
	watched, unwatch := context.WithCancel(ctx)
	defer unwatch()
	defer context.AfterFunc(stopped, unwatch)()
	g.Go(func() error { return r.watch.run(watched) })
	g.Go(func() error { return r.view.Run(ctx) })
	g.Go(func() error { return r.tunnel.WatchMTU(ctx, r.loop.Kick) })
	g.Go(func() (err error) {
		priority.NotRealTime(func() { err = r.loop.Run(ctx) })
		return err
	})
	g.Go(func() error { return r.conflicts.run(ctx) })
	g.Go(func() error {
		priority.Collect(after)
		return nil
	})
	g.Go(func() error { return r.followMoves(ctx) })
	g.Go(func() error {
		priority.Ordinary(func() { r.census.run(ctx) })
		return nil
	})
	if r.mirror != nil {
		g.Go(func() error { return host.PortTaken(r.mirror.run(ctx), "tcp", r.cfg.FlowsPort) })
	}
	g.Go(func() error { return r.reloadKeys(ctx) })
	if r.cfg.Reporter != nil {
		g.Go(func() error {
			r.cfg.Reporter.Run(ctx, r.sight)
			return nil
		})
	}
	g.Go(func() (err error) {
		priority.Ordinary(func() { err = r.clash.Run(ctx) })
		return err
	})
	if r.cfg.Allowlist != "" {
		g.Go(func() error {
			return host.ServeOnly(ctx, "--allowlist-listen", r.cfg.Allowlist, r.Handlers(), r.log)
		})
	}
	g.Go(func() error { return host.Serve(ctx, r.cfg.HTTP, r.cfg.TokenFile, r, r.metrics, r.log) })
	return g.Wait()
}

// guard starts a program, which at the priority of the election would take the processor
// from packets for tens of milliseconds.
func (r *Replica) guard(ctx context.Context, iface string) (err error) {
	priority.Ordinary(func() { err = r.fence.Guard(ctx, iface) })
	return err
}

// putUpFence makes a fence that somebody removed anew, closed.
func (r *Replica) putUpFence(ctx context.Context) error {
	if err := r.fence.Install(ctx, vip.Addrs(r.cfg.VIPs), r.lease); err != nil {
		return err
	}
	r.watch.guardAll(ctx)
	return nil
}

func (r *Replica) reconcile(ctx context.Context) error {
	if _, ok := r.view.Snapshot(); !ok {
		return nil
	}
	first, err := r.applied.Run(ctx, r.applyView)
	last := r.applied.Last()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.outcome = outcome{done: true, plan: r.plan, problems: r.problems, err: last.Error}
	if first {
		r.log.Info("translation is in place", "pods", len(r.plan.Pods), "routes", len(r.plan.Routes), "netfilter", r.filter.Name,
			"took_ms", int64(last.Seconds*1000))
	}
	return err
}

func (r *Replica) applyView(ctx context.Context) error {
	snap, _ := r.view.Snapshot()
	known := make([]netip.Addr, 0, len(r.cfg.VIPs))
	ends := make([]tunnel.Remote, 0, len(r.cfg.VIPs))
	for _, v := range r.cfg.VIPs {
		known = append(known, v.Addr)
		ends = append(ends, tunnel.Remote{VIP: v.Addr, Inside: v.Inside()})
	}
	snap.Internal = append(slices.Clone(snap.Internal), r.cfg.Internal...)
	plan, problems := gateway.Build(snap, known)
	own := gateway.OwnNode("gateway", r.cfg.NodeName, r.cfg.NodeIP, snap.Nodes, plan.Peers)
	problems = gateway.SortProblems(append(problems, own...))
	r.mu.Lock()
	r.plan, r.problems = plan, problems
	r.admit(snap, plan)
	r.mu.Unlock()
	if r.mirror != nil {
		r.mirror.audit.learn(plan)
	}
	table, err := snat.Table(r.cfg.SNAT, plan, ends)
	if err != nil {
		return err
	}
	down := r.cfg.SNAT.Tunnel.Downward(r.cfg.NodeIP, plan.Nodes())
	r.mu.Lock()
	r.wanted = &wanted{view: snap, own: own, down: down, table: table}
	r.mu.Unlock()
	// One pod without a way must not keep the others from their rules.
	ways := host.PortTaken(r.tunnel.Apply(ctx, down), "udp", r.cfg.SNAT.Tunnel.Port)
	rules := r.filter.Apply(ctx, table)
	if rules == nil {
		r.watch.translated()
	}
	if err := errors.Join(ways, rules); err != nil {
		return err
	}
	r.fast.apply(plan, time.Now())
	return r.forget(snap.Pods, plan)
}

// reloadKeys takes changes of the key file while running.
func (r *Replica) reloadKeys(ctx context.Context) error {
	last, err := gossip.LoadKeys(r.cfg.KeyFile)
	if err != nil {
		return err
	}
	ticker := time.NewTicker(5 * time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		keys, err := gossip.LoadKeys(r.cfg.KeyFile)
		if err != nil {
			r.log.Error("the gossip keys in use stay", "error", err)
			continue
		}
		if slices.EqualFunc(keys, last, slices.Equal[[]byte]) {
			continue
		}
		if err := r.gossip.SetKeys(keys); err != nil {
			r.log.Error("the gossip keys in use stay", "error", err)
			continue
		}
		last = keys
		if r.mirror != nil {
			if err := r.mirror.ring.Set(keys); err != nil {
				r.log.Error("the keys of replicated connections in use stay", "error", err)
			}
		}
	}
}

// evenReplicas is what an even number of replicas means.
func evenReplicas(n int) string {
	if n == 2 {
		return "--replicas 2 cannot survive the loss of either gateway: a quorum is both. Run 3 to survive one"
	}
	return fmt.Sprintf("--replicas %d survives the loss of %d gateways, no more than %d do: run an odd number", n, n-n/2-1, n-1)
}
