package vxlan

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/tunnel"
)

// manyTables is where listing table by table costs more than one listing of all
// routes of our protocol, which on a router with a full table is slow.
const manyTables = 1024

// listed are the routes of the tables, of which there are about so many, in the order of
// their places, and in the kernel's where several share one: the first is the one that
// counts.
func (c *conn) listed(first, last, about int) ([]*entry, error) {
	var list []entry
	if last-first < manyTables {
		for table := first; table <= last; table++ {
			part, err := c.routes(unix.AF_INET, table, 0, about)
			if err != nil {
				return nil, fmt.Errorf("table %d: %w", table, err)
			}
			if list == nil {
				list = part
			} else {
				list = append(list, part...)
			}
		}
	} else {
		part, err := c.routes(unix.AF_INET, 0, Protocol, about)
		if err != nil {
			return nil, err
		}
		list = slices.DeleteFunc(part, func(e entry) bool { return e.table < first || e.table > last })
	}
	inPlace := make([]*entry, len(list))
	for i := range list {
		inPlace[i] = &list[i]
	}
	slices.SortStableFunc(inPlace, func(a, b *entry) int { return a.key.compare(b.key) })
	return inPlace, nil
}

// diffRoutes is what leads from the routes that the kernel has to those of the plan, which
// are in the order of their places.
func (a *Applier) diffRoutes(plan tunnel.Plan, oif int, look func(first, last, about int) ([]*entry, error)) (put, stale []request, err error) {
	have, err := look(plan.FirstTable, plan.LastTable, len(plan.Routes))
	if err != nil {
		return nil, nil, err
	}
	at := end{a.cfg.VNI, oif, plan.Local}
	var errs []error
	var throws, tunnels, goneThrows, goneTunnels []request
	remove := func(e *entry) {
		switch {
		case e.protocol != Protocol:
		case e.throw:
			goneThrows = append(goneThrows, deleteRoute(e))
		default:
			goneTunnels = append(goneTunnels, deleteRoute(e))
		}
	}
	for _, r := range plan.Routes {
		place := placeOf(r)
		order := -1
		for len(have) > 0 {
			if order = have[0].key.compare(place); order >= 0 {
				break
			}
			remove(have[0])
			have = have[1:]
		}
		settled := false
		var wrong []*entry
		for ; len(have) > 0 && (order == 0 || have[0].key == place); have, order = have[1:], -1 {
			switch e := have[0]; {
			case !e.plain:
				remove(e)
			case e.protocol != Protocol:
				if !settled && len(wrong) == 0 {
					settled = true
					errs = append(errs, fmt.Errorf("%s is not ours and in the place of ours: remove it, or choose other tables with --table-base", e))
				}
			case !settled && e.is(r, at):
				settled = true
			default:
				wrong = append(wrong, e)
			}
		}
		// A replacement takes the first one's place, and is refused where the wanted
		// route stands behind it (net/ipv4/fib_trie.c, fib_table_insert).
		if !settled {
			req := putRoute(r, at, len(wrong) > 0)
			if r.Remote.IsValid() {
				tunnels = append(tunnels, req)
			} else {
				throws = append(throws, req)
			}
			wrong = wrong[min(1, len(wrong)):]
		}
		for _, e := range wrong {
			remove(e)
		}
	}
	for _, e := range have {
		remove(e)
	}
	return append(throws, tunnels...), append(goneTunnels, goneThrows...), errors.Join(errs...)
}
