// Package keep holds a firewall's sets at the last list that is to be believed, over
// restarts too, while the cluster comes and goes.
package keep

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sallyport/sallyport/allowlist"
	"github.com/sallyport/sallyport/gateway/lastview"
	"github.com/sallyport/sallyport/gateway/reconcile"
)

// Source delivers a list, and again when it is another one, until its context ends.
type Source interface {
	Run(ctx context.Context, deliver func(allowlist.List)) error
}

// Firewall is what is kept equal to the list.
type Firewall interface {
	Apply(ctx context.Context, all []allowlist.Address) (added, removed []netip.Addr, err error)
	// Watch calls changed when others may have changed it.
	Watch(ctx context.Context, changed func()) error
}

// Config of a Keeper.
type Config struct {
	Kind allowlist.Kind
	// File has the last list that was believed, whole.
	File string
	// Names of the entries that matter; none: all.
	Names []string
	// Within are the ranges that an address must lie in; none: any.
	Within []netip.Prefix
}

// Keeper keeps one firewall.
type Keeper struct {
	cfg      Config
	source   Source
	firewall Firewall
	log      *slog.Logger
	loop     *reconcile.Loop

	mu      sync.Mutex
	believe *allowlist.List
	unsaved bool
	said    map[string]string // what is amiss now, by what it is about
}

// ipset does not tell of changes, so it is looked at as often.
const resync = 10 * time.Second

// New starts nothing.
func New(cfg Config, source Source, firewall Firewall, log *slog.Logger) *Keeper {
	k := &Keeper{cfg: cfg, source: source, firewall: firewall, log: log, said: map[string]string{}}
	k.loop = reconcile.New("allowlist", log, k.apply)
	k.loop.Resync = resync
	return k
}

// Run keeps it until the context ends, and leaves it as it is then.
func (k *Keeper) Run(ctx context.Context) error {
	if err := os.MkdirAll(filepath.Dir(k.cfg.File), 0o755); err != nil {
		return fmt.Errorf("make the folder of the saved list: %w", err)
	}
	k.restore()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return k.loop.Run(ctx) })
	g.Go(func() error { return k.firewall.Watch(ctx, k.loop.Kick) })
	g.Go(func() error { return k.source.Run(ctx, k.deliver) })
	return g.Wait()
}

// restore takes the saved list: what a restart finds is what it left, be the cluster
// there or not.
func (k *Keeper) restore() {
	text, err := os.ReadFile(k.cfg.File)
	if errors.Is(err, fs.ErrNotExist) {
		k.log.Info("no list was saved: the sets are left alone until there is one", "file", k.cfg.File)
		return
	}
	var list allowlist.List
	if err == nil {
		list, err = allowlist.Unseal(text)
	}
	if err == nil && list.Kind != k.cfg.Kind {
		err = fmt.Errorf("it is a list of %s, not of %s: give another --state-dir", list.Kind, k.cfg.Kind)
	}
	if err != nil {
		k.log.Error("the saved list cannot be used", "file", k.cfg.File, "error", err)
		return
	}
	k.believe = &list
	k.log.Info("the saved list is in force", "file", k.cfg.File, "entries", len(list.Entries))
	k.loop.Kick()
}

// deliver takes what the source says, if that is to be believed.
func (k *Keeper) deliver(came allowlist.List) {
	k.mu.Lock()
	defer k.mu.Unlock()
	list, err := allowlist.Believe(k.believe, came)
	k.say("what came is not believed, the list before stays in force", err)
	if err == nil {
		k.believe, k.unsaved = list, true
	}
	k.loop.Kick()
}

// say once that something is amiss, and that it is no longer. The caller has the lock.
func (k *Keeper) say(what string, err error) {
	now := ""
	if err != nil {
		now = err.Error()
	}
	before := k.said[what]
	k.said[what] = now
	switch now {
	case before:
	case "":
		k.log.Info("no longer amiss", "what", what)
	default:
		k.log.Error(what, "error", err)
	}
}

// apply brings the list to the disk and into the kernel.
func (k *Keeper) apply(ctx context.Context) error {
	k.mu.Lock()
	list, unsaved := k.believe, k.unsaved
	k.unsaved = false
	k.mu.Unlock()
	if list == nil {
		return nil
	}
	var errs []error
	if unsaved {
		if err := lastview.Replace(k.cfg.File, allowlist.Seal(*list)); err != nil {
			errs = append(errs, err)
			k.mu.Lock()
			k.unsaved = true
			k.mu.Unlock()
		}
	}
	part, missing := list.Only(k.cfg.Names)
	part, outside := part.Within(k.cfg.Within)
	nothing := part.Nothing()
	k.mu.Lock()
	k.say("some of the entries asked for are not there", missing)
	k.say("some addresses are not taken", outside)
	k.say("the sets stay as they are", nothing)
	k.mu.Unlock()
	if nothing == nil {
		added, removed, err := k.firewall.Apply(ctx, part.Addresses())
		if len(added)+len(removed) > 0 {
			k.log.Info("the sets have changed", "added", added, "removed", removed)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
