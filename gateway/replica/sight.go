package replica

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/sallyport/sallyport/election"
	"github.com/sallyport/sallyport/election/boottime"
	"github.com/sallyport/sallyport/gateway"
	"github.com/sallyport/sallyport/gateway/report"
)

// Reporter tells people what the replica sees, whenever it likes to look, and
// whether it succeeds or not. It returns when its context ends.
type Reporter interface {
	Run(ctx context.Context, sight func() report.Sight)
}

// outcome is the last view that was brought to the kernel, or failed to be.
type outcome struct {
	done     bool
	plan     gateway.Plan
	problems []gateway.Problem
	err      string
}

// sight is what this replica sees now.
func (r *Replica) sight() report.Sight {
	r.mu.Lock()
	last := r.outcome
	r.mu.Unlock()
	s := report.Sight{
		Name: r.cfg.Gossip.Name, Node: r.cfg.NodeName,
		Applied: last.done, Plan: last.plan, Problems: last.problems, ApplyError: last.err,
	}
	conflicts, unclaimed := r.conflicts.problems(), r.keeper.failures()
	now, boot := time.Now(), boottime.Now()
	states, _, _ := r.electorate.status()
	for _, state := range states {
		v := r.electorate.vips[state.VIP]
		out := report.VIP{
			Addr: v.Addr, Holder: state.Holder, Held: state.Role == election.Holder && state.Until > boot,
			Since: now.Add(state.Since - boot), Voters: state.Voters, Quorum: state.Quorum, Barred: state.Why,
			Unclaimed: unclaimed[state.VIP],
		}
		if out.Since.Before(r.started) { // nothing was known before
			out.Since = r.started
		}
		for _, p := range conflicts {
			if about := func(a netip.Addr) bool { return p.Object == vipObject(a) }; slices.ContainsFunc(v.Addrs(), about) {
				out.Conflict = p.Message
			}
		}
		s.VIPs = append(s.VIPs, out)
	}
	return s
}
