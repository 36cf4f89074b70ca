package host

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/sallyport/sallyport/gateway"
	"github.com/sallyport/sallyport/netfilter"
	"github.com/sallyport/sallyport/netfilter/iptables"
	"github.com/sallyport/sallyport/netfilter/nft"
)

// The choices of --netfilter.
const (
	Auto     = "auto"
	NFTables = "nftables"
	IPTables = "iptables"
)

// applier makes the kernel's packet filter equal to a table.
type applier interface {
	Apply(ctx context.Context, table netfilter.Table) error
	Counters(ctx context.Context, table string) (map[string]netfilter.Counts, error)
	// Pending is what Apply would change, of elements as far as the addresses go.
	Pending(ctx context.Context, table netfilter.Table, about []netip.Addr) ([]netfilter.Pending, error)
}

// Filter is the host's packet filter, for one table of ours.
type Filter struct {
	Name string // nftables, iptables-nft or iptables-legacy

	table   string
	applier applier
	// takeOver removes what the other applier made in an earlier run, once ours is
	// in place, so that no packet meets neither.
	takeOver func(context.Context) error
	taken    bool
	rivals   func(context.Context) ([]string, error)

	mu       sync.Mutex
	looked   time.Time
	problems []gateway.Problem
}

// rivalsEvery is how often others' masquerades are looked for: it takes a listing
// of all their rules.
const rivalsEvery = 30 * time.Second

// OpenFilter chooses the applier; left to it, nftables wherever it works.
func OpenFilter(ctx context.Context, choice, table string, log *slog.Logger) (*Filter, error) {
	modern, modernErr := nft.New(log)
	switch choice {
	case Auto, NFTables:
		if modernErr == nil {
			return &Filter{Name: NFTables, table: table, applier: modern, takeOver: func(ctx context.Context) error {
				return removeIPTables(ctx, table, log)
			}}, nil
		}
		if choice == NFTables {
			return nil, fmt.Errorf("--netfilter nftables: %w", modernErr)
		}
		log.Warn("nftables does not work here, iptables is used instead", "error", modernErr)
	case IPTables:
	default:
		return nil, fmt.Errorf("--netfilter %s: choose %s, %s or %s", choice, Auto, NFTables, IPTables)
	}
	variant, err := iptables.Detect(ctx)
	if err != nil {
		return nil, fmt.Errorf("--netfilter %s: %w", choice, err)
	}
	old, err := iptables.New(variant, log)
	if err != nil {
		return nil, fmt.Errorf("--netfilter %s: %w", choice, err)
	}
	for _, limit := range old.Limits() {
		log.Warn(limit)
	}
	f := &Filter{Name: string(variant), table: table, applier: old, rivals: old.Rivals}
	f.takeOver = func(ctx context.Context) error {
		if modernErr != nil {
			return nil
		}
		return modern.Remove(ctx, table)
	}
	return f, nil
}

func removeIPTables(ctx context.Context, table string, log *slog.Logger) error {
	var errs []error
	for _, variant := range []iptables.Variant{iptables.NFT, iptables.Legacy} {
		old, err := iptables.New(variant, log)
		if err != nil {
			continue // not installed: nothing of it can be there
		}
		errs = append(errs, old.Remove(ctx, table))
	}
	return errors.Join(errs...)
}

// Apply makes the kernel equal to the table.
func (f *Filter) Apply(ctx context.Context, table netfilter.Table) error {
	if err := f.applier.Apply(ctx, table); err != nil {
		return err
	}
	if !f.taken {
		if err := f.takeOver(ctx); err != nil {
			return fmt.Errorf("remove the rules that another --netfilter left: %w", err)
		}
		f.taken = true
	}
	f.look(ctx)
	return nil
}

// look names the masquerades that an iptables applier cannot win against.
func (f *Filter) look(ctx context.Context) {
	if f.rivals == nil || time.Since(f.looked) < rivalsEvery {
		return
	}
	found, err := f.rivals(ctx)
	if err != nil {
		found = []string{err.Error()}
	}
	problems := make([]gateway.Problem, 0, len(found))
	for _, text := range found {
		problems = append(problems, gateway.Problem{
			Object: f.Name, Field: "--netfilter", Reason: gateway.Misconfigured, Message: text,
		})
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.looked, f.problems = time.Now(), problems
}

// Problems are what the filter cannot do on this host.
func (f *Filter) Problems() []gateway.Problem {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.problems
}

// Pending is what keeps the kernel from being equal to the table.
func (f *Filter) Pending(ctx context.Context, table netfilter.Table, about []netip.Addr) ([]netfilter.Pending, error) {
	return f.applier.Pending(ctx, table, about)
}

// Missing is what the kernel has not of what the rules are made of. That nothing can be
// tried is an error of applying, too.
func (f *Filter) Missing(ctx context.Context) []string {
	asked, ok := f.applier.(interface {
		Missing(ctx context.Context) ([]string, error)
	})
	if !ok { // iptables has its Limits, which are logged at the start
		return nil
	}
	missing, _ := asked.Missing(ctx)
	return missing
}

// Counters of the table.
func (f *Filter) Counters(ctx context.Context) (map[string]netfilter.Counts, error) {
	return f.applier.Counters(ctx, f.table)
}
