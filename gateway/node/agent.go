// Package node runs the agent of one node: it follows the view, keeps the node's
// steering rules, tunnel and routes equal to it, and clears away what a dead
// gateway or a deleted pod leaves behind on this host. When it stops, its rules
// stay: selected pods then still leave by the VIP or not at all.
package node

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sallyport/sallyport/gateway"
	"github.com/sallyport/sallyport/gateway/host"
	"github.com/sallyport/sallyport/gateway/node/gate"
	"github.com/sallyport/sallyport/gateway/node/wiring"
	"github.com/sallyport/sallyport/gateway/reconcile"
	"github.com/sallyport/sallyport/gateway/report"
	"github.com/sallyport/sallyport/netfilter"
	"github.com/sallyport/sallyport/steer"
	"github.com/sallyport/sallyport/tunnel"
	"github.com/sallyport/sallyport/tunnel/vxlan"
	"github.com/sallyport/sallyport/vip"
	"github.com/sallyport/sallyport/vip/layer2"
)

// Config of an agent.
type Config struct {
	Version  string
	NodeName string     // as in the Node object
	NodeIP   netip.Addr // the node's tunnel end
	// VIPs are needed only where a VIP has an inside address; other VIPs are known
	// from the routes.
	VIPs []vip.VIP
	// Internal are ranges that no route takes, besides those of nodes, pods and VIPs.
	Internal []netip.Prefix
	// PodRanges that pods of this node send from; none: those of the Node object.
	PodRanges []netip.Prefix
	Tunnel    tunnel.Config
	Netfilter string // host.Auto, host.NFTables or host.IPTables
	HTTP      string // address of the HTTP endpoint
	TokenFile string // lets who has its token see there what this host may; "": everybody
	StateDir  string
	Teller    Teller // nil: nobody is told
	SYNRetry  SYNRetry
	FastPath  bool // established connections go beside netfilter, where the kernel can
	Gate      gate.Config
}

// Teller tells people what happens to their pods, whether it succeeds or not.
type Teller interface {
	// Tell returns at once.
	Tell(events []report.Event)
	Run(ctx context.Context)
}

// Agent is one node's agent.
type Agent struct {
	cfg     Config
	log     *slog.Logger
	metrics *host.Metrics
	applied *host.Applied
	started time.Time

	view   *host.View
	loop   *reconcile.Loop
	tunnel *vxlan.Applier
	filter *host.Filter
	clash  *host.Clashes
	host   *layer2.Host
	fence  *layer2.Fence // of a gateway on this host, only read
	reaper *layer2.Reaper
	gate   *gate.Gate

	mu       sync.Mutex
	plan     gateway.Plan
	problems []gateway.Problem
	wanted   *wanted // nil before the first view

	wiring  *wiring.Watch
	retry   retry
	fast    fastPath
	tenancy gateway.Tenancy
	before  memory // of the last apply that succeeded
	told    []report.Event
}

// New starts nothing.
func New(ctx context.Context, cfg Config, source host.Source, log *slog.Logger) (*Agent, error) {
	if err := cfg.SYNRetry.check(); err != nil {
		return nil, err
	}
	metrics := host.NewMetrics()
	a := &Agent{cfg: cfg, log: log, metrics: metrics, applied: host.NewApplied(metrics), started: time.Now()}
	var err error
	if a.filter, err = host.OpenFilter(ctx, cfg.Netfilter, steer.TableName, log); err != nil {
		return nil, err
	}
	if a.tunnel, err = vxlan.New(cfg.Tunnel, log); err != nil {
		return nil, err
	}
	a.clash = host.NewClashes(cfg.Tunnel.Marks, 0, a.tunnel, log)
	a.loop = reconcile.New("agent", log, a.reconcile)
	a.wiring = wiring.New(a.loop.Kick, log)
	a.retry = retry{SYNRetry: cfg.SYNRetry, node: cfg.NodeName, log: log}
	a.fast = fastPath{on: cfg.FastPath, node: cfg.NodeName, local: cfg.NodeIP, cfg: cfg.Tunnel, log: log}
	a.view = host.NewView(source, cfg.StateDir, "agent", a.loop.Kick, log)
	if a.host, err = layer2.Open(); err != nil {
		return nil, err
	}
	if a.fence, err = layer2.NewFence(a.host); err != nil {
		return nil, err
	}
	a.reaper = layer2.NewReaper(a.host, a.fence, a.moving, log)
	a.gate = gate.New(cfg.Gate, log)
	return a, nil
}

// Run serves until the context ends, and leaves the rules in place.
func (a *Agent) Run(ctx context.Context) error {
	defer a.host.Close()
	defer a.fence.Stop()
	a.retry.attach()
	defer a.retry.close()
	defer a.fast.close()
	a.told = a.toldBefore()
	g, ctx := errgroup.WithContext(ctx)
	if a.cfg.Teller != nil {
		g.Go(func() error {
			a.cfg.Teller.Run(ctx)
			return nil
		})
	}
	g.Go(func() error { return a.wiring.Run(ctx) })
	g.Go(func() error { return a.tunnel.WatchMTU(ctx, a.loop.Kick) })
	g.Go(func() error { return a.view.Run(ctx) })
	g.Go(func() error { return a.loop.Run(ctx) })
	g.Go(func() error { return a.reaper.Run(ctx) })
	g.Go(func() error { return a.clash.Run(ctx) })
	g.Go(func() error { return a.gate.Run(ctx) })
	g.Go(func() error { return host.Serve(ctx, a.cfg.HTTP, a.cfg.TokenFile, a, a.metrics, a.log) })
	return g.Wait()
}

func (a *Agent) reconcile(ctx context.Context) error {
	if _, ok := a.view.Snapshot(); !ok {
		return nil // an interface changed before the source spoke: nothing is in place yet
	}
	first, err := a.applied.Run(ctx, a.applyView)
	if first {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.log.Info("steering is in place", "pods", len(a.plan.Pods), "routes", len(a.plan.Routes), "netfilter", a.filter.Name,
			"took_ms", int64(a.applied.Last().Seconds*1000))
	}
	return err
}

func (a *Agent) applyView(ctx context.Context) error {
	live := a.view.Live()
	snap, _ := a.view.Snapshot()
	local := a.local(snap)
	local.Pods = a.tenants(local.Pods)
	plan, problems := gateway.Build(local, nil)
	ends := a.remotes(plan.VIPs)
	up, err := a.cfg.Tunnel.Up(a.cfg.NodeIP, ends)
	if err != nil {
		return err
	}
	hold, more := gateway.NewHold(snap, a.cfg.NodeName, local.Pods, a.cfg.PodRanges)
	own := gateway.OwnNode("agent", a.cfg.NodeName, a.cfg.NodeIP, snap.Nodes, plan.Peers)
	problems = gateway.SortProblems(slices.Concat(problems, more, own))
	table, err := steer.Table(a.cfg.Tunnel, plan, hold, ends)
	if err != nil {
		return err
	}
	a.mu.Lock()
	a.plan, a.problems = plan, problems
	a.wanted = &wanted{view: local, own: own, ends: ends, up: up, table: table}
	a.mu.Unlock()

	// The way out first, then the rules that send packets there: these in any case, for
	// they also keep packets from every other way.
	if err := errors.Join(host.PortTaken(a.tunnel.Apply(ctx, up), "udp", a.cfg.Tunnel.Port), a.filter.Apply(ctx, table)); err != nil {
		return err
	}
	a.fast.apply(plan, &a.tenancy, ends)
	a.retry.apply(plan)
	if err := a.forget(local.Pods, plan); err != nil {
		return err
	}
	a.tell(local.Pods, plan, problems)
	if !live {
		// A route may be newer than the saved view. Nor has the kubelet any pods to start
		// while it does not hear the API server.
		return nil
	}
	return a.gate.Open()
}

// local is the part of the view that concerns this node.
func (a *Agent) local(snap gateway.Snapshot) gateway.Snapshot {
	local := snap
	local.Internal = append(slices.Clone(snap.Internal), a.cfg.Internal...)
	here := 0
	for i := range snap.Pods {
		if snap.Pods[i].Node == a.cfg.NodeName {
			here++
		}
	}
	if here == len(snap.Pods) {
		return local
	}
	local.Pods = make([]gateway.Pod, 0, here)
	for i := range snap.Pods {
		if snap.Pods[i].Node == a.cfg.NodeName {
			local.Pods = append(local.Pods, snap.Pods[i])
		}
	}
	return local
}

// remotes pairs each VIP with the address its tunnel packets go to.
func (a *Agent) remotes(vips []netip.Addr) []tunnel.Remote {
	ends := make([]tunnel.Remote, 0, len(vips))
	for _, addr := range vips {
		end := tunnel.Remote{VIP: addr, Inside: addr}
		for _, v := range a.cfg.VIPs {
			if v.Addr == addr {
				end.Inside = v.Inside()
			}
		}
		ends = append(ends, end)
	}
	return ends
}

// moving are the addresses that a gateway on this host may have.
func (a *Agent) moving() []netip.Addr {
	a.mu.Lock()
	vips := a.plan.VIPs
	a.mu.Unlock()
	var addrs []netip.Addr
	for _, end := range a.remotes(vips) {
		addrs = append(addrs, end.VIP, end.Inside)
	}
	return gateway.SortedAddrs(addrs)
}

// Status implements host.Program.
func (a *Agent) Status(ctx context.Context) host.Status {
	a.mu.Lock()
	s := host.Status{
		Program: "agent", Node: a.cfg.NodeName, Version: a.cfg.Version, Started: a.started,
		Netfilter: a.filter.Name, Live: a.view.Live(), Apply: a.applied.Last(), Problems: slices.Concat(a.problems, a.view.Problems()),
	}
	plan := a.plan
	a.mu.Unlock()
	s.Describe(plan)
	s.Aged(a.view)
	for _, end := range a.remotes(plan.VIPs) {
		s.VIPs = append(s.VIPs, host.VIP{VIP: end.VIP, Inside: end.Inside})
	}
	dropped, err := a.filter.Counters(ctx)
	if err != nil {
		s.Problems = append(s.Problems, gateway.Problem{
			Object: "netfilter " + a.filter.Name, Reason: gateway.Unreadable, Message: err.Error(),
		})
	}
	s.Dropped, s.KeptOut = dropped, map[string]netfilter.Counts{}
	for name, n := range dropped {
		if namespace, is := steer.NamespaceOf(name); is {
			s.KeptOut[namespace] = n
			delete(dropped, name)
		}
	}
	s.Problems = append(s.Problems, a.filter.Problems()...)
	s.Problems = append(s.Problems, a.tunnel.Check()...)
	s.Problems = append(s.Problems, host.TokenProblems(a.cfg.TokenFile)...)
	s.Problems = append(s.Problems, a.clash.Problems()...)
	a.retry.describe(&s)
	a.fast.describe(&s)
	s.Problems = append(s.Problems, a.gate.Problems()...)
	return s
}

// Healthy implements host.Program.
func (a *Agent) Healthy() error { return nil }

// Ready implements host.Program: the node's rules are in the kernel.
func (a *Agent) Ready() error { return a.applied.Ready() }
