// Package vxlan puts a tunnel.Plan into the kernel: one VXLAN-GPE device in
// external mode, ip rules that lead marked packets to our routing tables, and in
// those the routes that carry the far tunnel end.
//
// What is wanted is compared with what the kernel lists, never with memory, so
// Apply is also the repair. The agent and the gateway of one host share the device
// and have tables of their own; neither touches the other's.
package vxlan

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/tunnel"
)

// Protocol marks our routes and rules (rtm_protocol, FRA_PROTOCOL). It is of no
// routing daemon in include/uapi/linux/rtnetlink.h.
const Protocol = 83

// Applier belongs to the network namespace that it was made in.
type Applier struct {
	cfg tunnel.Config
	log *slog.Logger

	mu     sync.Mutex
	conn   *conn
	mirror *mirror
}

// New opens the kernel's interface and changes nothing.
func New(cfg tunnel.Config, log *slog.Logger) (*Applier, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("tunnel configuration: %w", err)
	}
	c, err := dial()
	if err != nil {
		return nil, err
	}
	m, err := newMirror(c, announcements)
	if err != nil {
		return nil, errors.Join(err, c.close())
	}
	return &Applier{cfg: cfg, log: log, conn: c, mirror: m}, nil
}

// Close lets go of the kernel's interface; what was applied stays.
func (a *Applier) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return errors.Join(a.mirror.hears.close(), a.conn.close())
}

// Apply makes the device, and what is ours in the plan's tables, equal to the
// plan. What cannot be done is in the error; the rest is done.
func (a *Applier) Apply(ctx context.Context, plan tunnel.Plan) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	plan, refused := served(plan)
	if !plan.Local.IsValid() {
		return refused
	}
	oif, err := a.device(ctx, plan.Local)
	if err != nil {
		return errors.Join(refused, err)
	}
	return errors.Join(refused, a.tables(ctx, plan, oif))
}

// Remove takes away what is ours in the plan's tables and the rules that lead
// there. The device stays: another program may be using it.
func (a *Applier) Remove(ctx context.Context, plan tunnel.Plan) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.tables(ctx, tunnel.Plan{FirstTable: plan.FirstTable, LastTable: plan.LastTable}, 0)
}

// served is the part of the plan that can be put into the kernel, its routes in the
// order of their places, and why the rest cannot. Without a Local nothing can.
func served(plan tunnel.Plan) (tunnel.Plan, error) {
	if !plan.Local.Is4() {
		err := fmt.Errorf("tunnel end %s of this host: IPv6 is not there yet, give an IPv4 address with --node-ip", plan.Local)
		if !plan.Local.IsValid() {
			err = errors.New("the tunnel end of this host is not known: give its address with --node-ip")
		}
		return tunnel.Plan{}, err
	}
	inPlace := func(a, b tunnel.Route) int { return placeOf(a).compare(placeOf(b)) }
	if !slices.IsSortedFunc(plan.Routes, inPlace) {
		plan.Routes = slices.SortedStableFunc(slices.Values(plan.Routes), inPlace)
	}
	var errs []error
	var last key
	refused := func(r tunnel.Route) (err error) {
		switch {
		case r.Dst.Addr().Is6() || r.Remote.Is6():
			err = fmt.Errorf("route %s in table %d to tunnel end %s: IPv6 is not there yet", r.Dst, r.Table, r.Remote)
		case !r.Dst.IsValid() || r.Dst != r.Dst.Masked():
			err = fmt.Errorf("route %s in table %d: not a network", r.Dst, r.Table)
		case r.Table < plan.FirstTable || r.Table > plan.LastTable:
			err = fmt.Errorf("route %s in table %d: outside of tables %d to %d", r.Dst, r.Table, plan.FirstTable, plan.LastTable)
		case placeOf(r) == last:
			err = fmt.Errorf("route %s in table %d: twice in one plan", r.Dst, r.Table)
		default:
			last = placeOf(r)
		}
		return err
	}
	var kept []tunnel.Route
	for i, r := range plan.Routes {
		err := refused(r)
		switch {
		case err != nil && errs == nil:
			kept = slices.Clone(plan.Routes[:i])
			fallthrough
		case err != nil:
			errs = append(errs, err)
		case errs != nil:
			kept = append(kept, r)
		}
	}
	if errs != nil {
		plan.Routes = kept
	}
	var rules []tunnel.Rule
	for _, r := range plan.Rules {
		if r.Table < plan.FirstTable || r.Table > plan.LastTable {
			errs = append(errs, fmt.Errorf("%s: outside of tables %d to %d", ruleString(r), plan.FirstTable, plan.LastTable))
			continue
		}
		rules = append(rules, r)
	}
	plan.Rules = rules
	return plan, errors.Join(errs...)
}

// rounds bounds how often a removal is looked over again.
const rounds = 5

// tables brings rules and routes to the plan. In the kernel's requests to delete,
// what a rule or route does not have means any, so that removing one that others
// made up under our protocol can hit one of ours: then the outcome is looked at.
func (a *Applier) tables(ctx context.Context, plan tunnel.Plan, oif int) error {
	for range rounds {
		vague, err := a.pass(ctx, plan, oif)
		if err != nil || !vague {
			return err
		}
	}
	return fmt.Errorf("tables %d to %d keep changing while they are brought to the plan", plan.FirstTable, plan.LastTable)
}

// pass is one comparison and what follows from it. The order keeps packets from
// meeting half of it: routes before the rule that leads to them, throw routes
// before the tunnel routes whose outer packets need them, and the reverse for
// what goes.
func (a *Applier) pass(ctx context.Context, plan tunnel.Plan, oif int) (vague bool, err error) {
	put, stale, errRoutes := a.diffRoutes(plan, oif, a.mirror.look)
	add, drop, errRules := a.diffRules(plan)
	if errRules != nil { // without them the order cannot be kept
		return false, errors.Join(errRoutes, errRules)
	}
	reqs := slices.Concat(put, add, drop, stale)
	if len(reqs) == 0 {
		return false, errRoutes
	}
	err = a.conn.change(ctx, reqs)
	a.log.Info("tunnel routes changed", "tables", fmt.Sprintf("%d-%d", plan.FirstTable, plan.LastTable),
		"routes_put", len(put), "routes_removed", len(stale), "rules_added", len(add), "rules_removed", len(drop))
	vague = slices.ContainsFunc(reqs, func(r request) bool { return r.vague })
	return vague, errors.Join(errRoutes, err)
}

func (a *Applier) diffRules(plan tunnel.Plan) (add, drop []request, err error) {
	list, err := a.conn.rules(unix.AF_INET)
	if err != nil {
		return nil, nil, err
	}
	settled := make(map[tunnel.Rule]bool, len(plan.Rules))
	for _, r := range list {
		if r.Table < plan.FirstTable || r.Table > plan.LastTable {
			continue
		}
		if !r.odd && slices.Contains(plan.Rules, r.Rule) && !settled[r.Rule] {
			settled[r.Rule] = true
			continue
		}
		drop = append(drop, deleteRule(r))
	}
	for _, r := range plan.Rules {
		if !settled[r] {
			settled[r] = true
			add = append(add, addRule(r))
		}
	}
	return add, drop, nil
}
