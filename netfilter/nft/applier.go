// Package nft makes the kernel's nftables equal to a netfilter.Table: it reads what
// is there over netlink, then follows what the kernel announces, and makes the
// difference in one transaction, of elements alone over netlink, of anything else by
// nft. It does not remember what it did, so whatever others do to our tables is
// repaired by the next Apply, and an Apply with nothing to do writes nothing.
package nft

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"sigs.k8s.io/knftables"

	"github.com/sallyport/sallyport/netfilter"
)

// Applier carries tables into the network namespace of the calling thread.
type Applier struct {
	log *slog.Logger
	nft knftables.Interface
	one sync.Mutex // one transaction at a time: two would undo each other

	mirrors   map[string]*mirror // by table and family
	flattened *flattened
}

// New checks that nft is there and that the kernel takes rules from it.
func New(log *slog.Logger) (*Applier, error) {
	run, err := knftables.New("", "", knftables.NoObjectCommentEmulation)
	if err != nil {
		return nil, fmt.Errorf("try nftables: %w", err)
	}
	return &Applier{log: log, nft: run, mirrors: map[string]*mirror{}, flattened: newFlattened()}, nil
}

// Apply makes the kernel's table equal to t. Counters go on counting.
func (a *Applier) Apply(ctx context.Context, t netfilter.Table) error {
	a.one.Lock()
	defer a.one.Unlock()
	f := ipv4
	if t.IPv6 {
		f = ipv6
	}
	var want *wanted
	var invalid error
	compiled := make(chan struct{})
	go func() { // beside the first reading, which has to stay on this thread
		a.flattened.next()
		want, invalid = compileWith(t, a.flattened)
		close(compiled)
	}()
	var refused error
	mirror := a.mirror(f, t.Name)
	look := mirror.look
	// What was seen may be changed by another before it is acted upon; then the
	// transaction is refused whole and the next look tells what is left to do.
	for range 3 {
		have, err := look()
		<-compiled
		if err := errors.Join(invalid, err); err != nil {
			return err
		}
		want.number(have)
		d := difference(a.nft.NewTransaction(), want, have)
		if d.tx.NumOperations() == 0 {
			return nil
		}
		if d.rebuilt { // the counters' readings are kept, and those nobody announces
			if have, err = mirror.read(); err != nil {
				return err
			}
			want.number(have)
			d = difference(a.nft.NewTransaction(), want, have)
		}
		if d.small() {
			refused = d.send(f, t.Name)
		} else {
			refused = a.nft.Run(ctx, d.tx)
		}
		if refused == nil {
			a.log.Info("rules changed", "table", t.Name, "family", f.String(), "rebuilt", d.rebuilt,
				"chains", d.chains, "elements_added", d.added, "elements_removed", d.removed)
			return nil
		}
		if ctx.Err() != nil {
			break
		}
		look = mirror.read
	}
	return fmt.Errorf("apply table %s %s: %w", f, t.Name, refused)
}

func (a *Applier) mirror(f family, table string) *mirror {
	name := f.String() + " " + table
	if a.mirrors[name] == nil {
		a.mirrors[name] = &mirror{of: f, table: table, room: announcements}
	}
	return a.mirrors[name]
}

// Counters reads the counters of a table, of both families together. A table that
// is not there has none.
func (a *Applier) Counters(_ context.Context, table string) (map[string]netfilter.Counts, error) {
	sum := map[string]netfilter.Counts{}
	for _, f := range []family{ipv4, ipv6} {
		counters, err := readCounters(f, table)
		if err != nil {
			return nil, fmt.Errorf("read the counters of table %s %s: %w", f, table, err)
		}
		for name, n := range counters {
			name = modelName(name)
			sum[name] = netfilter.Counts{Packets: sum[name].Packets + n.Packets, Bytes: sum[name].Bytes + n.Bytes}
		}
	}
	return sum, nil
}

// Remove takes a table of ours out of the kernel, in every family that has it.
func (a *Applier) Remove(ctx context.Context, table string) error {
	if !strings.HasPrefix(table, "sally") {
		return fmt.Errorf("remove table %s: its name is none of ours", table)
	}
	return a.remove(ctx, func(name string) bool { return name == table })
}

// Cleanup takes every table of ours out of the kernel, whatever version made it.
func (a *Applier) Cleanup(ctx context.Context) error {
	return a.remove(ctx, func(name string) bool { return strings.HasPrefix(name, "sally_") })
}

func (a *Applier) remove(ctx context.Context, which func(string) bool) error {
	a.one.Lock()
	defer a.one.Unlock()
	var errs []error
	for _, f := range []family{ipv4, ipv6, arp} {
		tables, err := listTables(f)
		if err != nil {
			errs = append(errs, fmt.Errorf("list the tables of family %s: %w", f, err))
			continue
		}
		var names []string
		for name := range tables {
			if which(name) {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		for _, name := range names {
			tx := a.nft.NewTransaction()
			tx.Delete(&knftables.Table{Family: knftables.Family(f.String()), Name: name})
			if err := a.nft.Run(ctx, tx); err != nil && !knftables.IsNotFound(err) {
				errs = append(errs, fmt.Errorf("delete table %s %s: %w", f, name, err))
				continue
			}
			a.log.Info("rules removed", "table", name, "family", f.String())
		}
	}
	return errors.Join(errs...)
}
