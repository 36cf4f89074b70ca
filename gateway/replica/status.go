package replica

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/sallyport/sallyport/election"
	"github.com/sallyport/sallyport/election/boottime"
	"github.com/sallyport/sallyport/gateway"
	"github.com/sallyport/sallyport/gateway/host"
	"github.com/sallyport/sallyport/netfilter"
	"github.com/sallyport/sallyport/snat"
)

// Fenced is the reason of packets that the fence dropped: they came for a VIP whose
// lease had ended on this host.
const Fenced = "fenced"

// Status implements host.Program.
func (r *Replica) Status(ctx context.Context) host.Status {
	r.mu.Lock()
	s := host.Status{
		Program: "gateway", Name: r.cfg.Gossip.Name, Node: r.cfg.NodeName, Version: r.cfg.Version, Started: r.started,
		Netfilter: r.filter.Name, Priority: r.priority, PriorityRefused: !r.raised, Timing: r.cfg.Timing, Live: r.view.Live(),
		Apply: r.applied.Last(), Problems: slices.Concat(r.problems, r.view.Problems()), Dropped: map[string]netfilter.Counts{},
	}
	plan := r.plan
	r.mu.Unlock()
	s.Describe(plan)
	s.Aged(r.view)

	counts, err := r.filter.Counters(ctx)
	if err != nil {
		s.Problems = append(s.Problems, gateway.Problem{
			Object: "netfilter " + r.filter.Name, Reason: gateway.Unreadable, Message: err.Error(),
		})
	}
	for _, reason := range snat.Refusals() {
		s.Dropped[reason] = counts[reason]
	}
	if fenced, err := r.fence.Dropped(); err == nil {
		s.Dropped[Fenced] = netfilter.Counts{Packets: fenced}
	}
	for i, route := range plan.Routes {
		s.Routes[i].Sent = counts[snat.RouteCounter(route.ID)]
	}
	r.fast.describe(&s, plan.Routes)

	now := boottime.Now()
	states, transitions, _ := r.electorate.status()
	for _, state := range states {
		v := r.electorate.vips[state.VIP]
		out := host.VIP{
			VIP: v.Addr, Interface: v.Interface, Holder: state.Holder, Term: state.Term, Voters: state.Voters,
			Held: state.Role == election.Holder, Replicas: r.cfg.Replicas, Transitions: transitions[state.VIP],
			HeartbeatSeconds: state.RTT.Seconds(), Barred: state.Why,
		}
		if v.Via.IsValid() {
			out.Inside = v.Via
		}
		if state.Holder != "" {
			out.Since = time.Now().Add(state.Since - now)
		}
		if out.Held {
			out.LeaseSeconds = max(0, state.Until-now).Seconds()
		}
		r.electorate.describe(state.VIP, &out)
		out.DuplicateOwners = r.conflicts.count(v.Addr)
		s.VIPs = append(s.VIPs, out)
	}
	r.census.describe(s.VIPs, s.Routes, plan.Routes)
	if r.mirror != nil {
		r.mirror.describe(s.VIPs)
		s.Problems = append(s.Problems, r.mirror.problems()...)
		s.Audit = r.mirror.audit.describe()
		s.Problems = append(s.Problems, r.mirror.audit.problems()...)
	}
	s.Problems = append(s.Problems, unaudited(r.cfg, plan)...)
	s.Problems = append(s.Problems, host.TokenProblems(r.cfg.TokenFile)...)
	if r.cfg.Peers != nil { // it may have the view's own
		s.Problems = gateway.SortProblems(append(s.Problems, r.cfg.Peers.Problems()...))
	}
	s.Problems = append(s.Problems, r.filter.Problems()...)
	s.Problems = append(s.Problems, r.tunnel.Check()...)
	s.Problems = append(s.Problems, r.clash.Problems()...)
	s.Problems = append(s.Problems, r.watch.problems()...)
	s.Problems = append(s.Problems, r.conflicts.problems()...)
	for _, p := range r.gossip.Problems() {
		s.Problems = append(s.Problems, gateway.Problem{Object: p.Object, Reason: gateway.Reason(p.Reason), Message: p.Message})
	}
	for _, text := range r.electorate.problems() {
		s.Problems = append(s.Problems, gateway.Problem{Object: "Gateway " + r.cfg.NodeName, Reason: gateway.Misconfigured, Message: text})
	}
	if r.cfg.Replicas%2 == 0 {
		s.Problems = append(s.Problems, gateway.Problem{
			Object: "Gateway " + r.cfg.NodeName, Field: "--replicas", Reason: gateway.Misconfigured, Message: evenReplicas(r.cfg.Replicas),
		})
	}
	return s
}

// stuck is a turn of the election loop that took far too long.
const stuck = 10 * time.Second

// Healthy implements host.Program.
func (r *Replica) Healthy() error {
	if _, _, turned := r.electorate.status(); turned != 0 && boottime.Now()-turned > stuck {
		return fmt.Errorf("the election has not moved for %v", boottime.Now()-turned)
	}
	return nil
}

// Ready implements host.Program: rules are in the kernel, and the replicas agree on
// who holds what.
func (r *Replica) Ready() error {
	if err := r.applied.Ready(); err != nil {
		return err
	}
	states, _, _ := r.electorate.status()
	for _, s := range states {
		if s.Holder == "" {
			return fmt.Errorf("nobody holds VIP %s: %d of the %d voters needed are heard", s.VIP, len(s.Voters), s.Quorum)
		}
	}
	return nil
}

// incarnation tells this life of the process from others; never zero.
func incarnation() uint64 { return rand.Uint64() | 1 }
