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

	mu   sync.Mutex
	conn *conn
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
	return &Applier{cfg: cfg, log: log, conn: c}, nil
}

// Close lets go of the kernel's interface; what was applied stays.
func (a *Applier) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.conn.close()
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

// served is the part of the plan that can be put into the kernel, and why the
// rest cannot. Without a Local nothing can.
func served(plan tunnel.Plan) (tunnel.Plan, error) {
	if !plan.Local.Is4() {
		err := fmt.Errorf("tunnel end %s of this host: IPv6 is not there yet, give an IPv4 address with --node-ip", plan.Local)
		if !plan.Local.IsValid() {
			err = errors.New("the tunnel end of this host is not known: give its address with --node-ip")
		}
		return tunnel.Plan{}, err
	}
	var errs []error
	seen := make(map[key]bool, len(plan.Routes))
	keep := func(r tunnel.Route) bool {
		k := key{r.Table, r.Dst}
		switch {
		case r.Dst.Addr().Is6() || r.Remote.Is6():
			errs = append(errs, fmt.Errorf("route %s in table %d to tunnel end %s: IPv6 is not there yet", r.Dst, r.Table, r.Remote))
		case !r.Dst.IsValid() || r.Dst != r.Dst.Masked():
			errs = append(errs, fmt.Errorf("route %s in table %d: not a network", r.Dst, r.Table))
		case r.Table < plan.FirstTable || r.Table > plan.LastTable:
			errs = append(errs, fmt.Errorf("route %s in table %d: outside of tables %d to %d", r.Dst, r.Table, plan.FirstTable, plan.LastTable))
		case seen[k]:
			errs = append(errs, fmt.Errorf("route %s in table %d: twice in one plan", r.Dst, r.Table))
		default:
			seen[k] = true
			return true
		}
		return false
	}
	out := plan
	out.Routes = make([]tunnel.Route, 0, len(plan.Routes))
	for _, r := range plan.Routes {
		if keep(r) {
			out.Routes = append(out.Routes, r)
		}
	}
	out.Rules = nil
	for _, r := range plan.Rules {
		if r.Table < plan.FirstTable || r.Table > plan.LastTable {
			errs = append(errs, fmt.Errorf("%s: outside of tables %d to %d", ruleString(r), plan.FirstTable, plan.LastTable))
			continue
		}
		out.Rules = append(out.Rules, r)
	}
	return out, errors.Join(errs...)
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
	put, stale, errRoutes := a.diffRoutes(plan, oif)
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

// manyTables is where listing table by table costs more than one listing of all
// routes of our protocol, which on a router with a full table is slow.
const manyTables = 1024

// listed are the routes of the tables, of which there are about so many.
func (a *Applier) listed(first, last, about int) ([]entry, error) {
	if last-first < manyTables {
		var list []entry
		for table := first; table <= last; table++ {
			part, err := a.conn.routes(unix.AF_INET, table, 0, about)
			if err != nil {
				return nil, fmt.Errorf("table %d: %w", table, err)
			}
			if list == nil {
				list = part
			} else {
				list = append(list, part...)
			}
		}
		return list, nil
	}
	list, err := a.conn.routes(unix.AF_INET, 0, Protocol, about)
	return slices.DeleteFunc(list, func(e entry) bool { return e.table < first || e.table > last }), err
}

func (a *Applier) diffRoutes(plan tunnel.Plan, oif int) (put, stale []request, err error) {
	list, err := a.listed(plan.FirstTable, plan.LastTable, len(plan.Routes))
	if err != nil {
		return nil, nil, err
	}
	at := end{a.cfg.VNI, oif, plan.Local}
	wanted := make(map[key]int, len(plan.Routes)) // index in the plan
	for i, r := range plan.Routes {
		wanted[key{r.Table, r.Dst}] = i
	}
	var errs []error
	settled, wrong := make([]bool, len(plan.Routes)), map[int][]entry{}
	var throws, tunnels []request // to be removed
	remove := func(e entry) {
		if e.throw {
			throws = append(throws, deleteRoute(e))
		} else {
			tunnels = append(tunnels, deleteRoute(e))
		}
	}
	// Several routes may share a place; the first listed is the one that counts.
	for _, e := range list {
		i, want := wanted[e.key]
		want = want && e.plain
		switch {
		case e.protocol != Protocol:
			if want && !settled[i] && len(wrong[i]) == 0 {
				settled[i] = true
				errs = append(errs, fmt.Errorf("%s is not ours and in the place of ours: remove it, or choose other tables with --table-base", e))
			}
		case want && !settled[i] && e.is(plan.Routes[i], at):
			settled[i] = true
		case want:
			wrong[i] = append(wrong[i], e)
		default:
			remove(e)
		}
	}
	// A replacement takes the first one's place, and is refused where the wanted
	// route stands behind it (net/ipv4/fib_trie.c, fib_table_insert).
	for i, entries := range wrong {
		if !settled[i] {
			entries = entries[1:]
		}
		for _, e := range entries {
			remove(e)
		}
	}
	for _, throwing := range []bool{true, false} {
		for i, r := range plan.Routes {
			if !settled[i] && throwing == !r.Remote.IsValid() {
				put = append(put, putRoute(r, at, len(wrong[i]) > 0))
			}
		}
	}
	return put, append(tunnels, throws...), errors.Join(errs...)
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
