package replica

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sallyport/sallyport/gateway"
	"github.com/sallyport/sallyport/vip"
	"github.com/sallyport/sallyport/vip/layer2"
)

// watch follows whether this host can hold each VIP: an interface whose subnet
// holds the address, with a link, and the translation in the kernel. Without that, what
// comes out of the tunnel would leave as the host's own pods do, with its address.
type watch struct {
	host    *layer2.Host
	changes chan standing
	log     *slog.Logger
	// guard has the fence stop what is announced on an interface.
	guard     func(ctx context.Context, iface string) error
	unguarded sync.Once // said

	resolved map[string]vip.VIP // fixed from the start
	wrong    []gateway.Problem  // VIPs without an interface

	kick chan struct{} // something below has changed
	mu   sync.Mutex
	up   map[string]string // interface to what is wrong with it, "" for up
	// unfit are VIPs that could not be claimed here, and why, while another is let.
	unfit map[string]string
	// translates from the first time on that the rules were brought into the kernel.
	translates bool
}

func newWatch(h *layer2.Host, vips []vip.VIP, guard func(context.Context, string) error, log *slog.Logger) *watch {
	w := &watch{host: h, guard: guard, changes: make(chan standing), log: log, resolved: map[string]vip.VIP{}, up: map[string]string{},
		kick: make(chan struct{}, 1), unfit: map[string]string{}}
	seen, err := h.Interfaces()
	for _, v := range vips {
		resolved := v
		if err == nil {
			resolved, err = vip.Resolve(v, seen)
		}
		if err != nil {
			w.wrong = append(w.wrong, gateway.Problem{
				Object: "VIP " + v.Addr.String(), Field: "--vip", Reason: gateway.Misconfigured,
				Message: err.Error() + "; this replica does not stand for it",
			})
			log.Error("VIP cannot be held here", "vip", v.String(), "error", err)
			w.resolved[v.Addr.String()] = v
			err = nil
			continue
		}
		w.resolved[v.Addr.String()] = resolved
	}
	return w
}

func (w *watch) vips() map[string]vip.VIP { return w.resolved }

// holdable are the VIPs that have an interface here.
func (w *watch) holdable() []vip.VIP {
	var vips []vip.VIP
	for _, name := range slices.Sorted(maps.Keys(w.resolved)) {
		if v := w.resolved[name]; v.Interface != "" && (!v.Via.IsValid() || v.ViaInterface != "") {
			vips = append(vips, v)
		}
	}
	return vips
}

func (w *watch) problems() []gateway.Problem { return slices.Clone(w.wrong) }

// run tells the election of every change until the context ends. A replica stands
// for nothing before its links are known.
func (w *watch) run(ctx context.Context) error {
	barred := map[string]string{}
	for _, p := range w.wrong {
		barred[p.Object] = p.Message
	}
	var interfaces []string
	for _, v := range w.resolved {
		for _, name := range []string{v.Interface, v.ViaInterface} {
			if name != "" && !slices.Contains(interfaces, name) {
				interfaces = append(interfaces, name)
				w.up[name] = "its state is not known yet"
			}
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return w.host.Watch(ctx, interfaces, func(name string, up bool, reason string) {
			// Before the election may give anything: an interface that is up may be another one than before.
			if up {
				w.guardOne(ctx, name)
			}
			w.mu.Lock()
			w.up[name] = ""
			if !up {
				w.up[name] = reason
			}
			w.mu.Unlock()
			w.changed()
		})
	})
	g.Go(func() error {
		last := map[string]standing{}
		for {
			for _, name := range slices.Sorted(maps.Keys(w.resolved)) {
				now := w.judge(name, barred["VIP "+name])
				if before, told := last[name]; told && before == now {
					continue
				}
				select {
				case <-ctx.Done():
					return nil
				case w.changes <- now:
					last[name] = now
				}
			}
			select {
			case <-ctx.Done():
				return nil
			case <-w.kick:
			case <-time.After(time.Minute):
			}
		}
	})
	return g.Wait()
}

func (w *watch) guardOne(ctx context.Context, iface string) {
	if err := w.guard(ctx, iface); err != nil && ctx.Err() == nil {
		w.unguarded.Do(func() {
			w.log.Warn("a gateway that is stopped at the wrong moment may announce a VIP late, once", "error", err)
		})
	}
}

// guardAll guards the interfaces that are there, after the fence was made anew.
func (w *watch) guardAll(ctx context.Context) {
	w.mu.Lock()
	up := maps.Clone(w.up)
	w.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(up)) {
		if up[name] == "" {
			w.guardOne(ctx, name)
		}
	}
}

func (w *watch) changed() {
	select {
	case w.kick <- struct{}{}:
	default:
	}
}

// bar keeps this replica from standing for the VIP for a while.
func (w *watch) bar(v vip.VIP, why string, pause time.Duration) {
	name := v.Addr.String()
	w.set(name, why)
	w.log.Warn("another is let hold the VIP", "vip", name, "for", pause.String(), "because", why)
	time.AfterFunc(pause, func() { w.set(name, "") })
}

// translated says that the rules are in the kernel, where they stay.
func (w *watch) translated() {
	w.mu.Lock()
	w.translates = true
	w.mu.Unlock()
	w.changed()
}

func (w *watch) set(name, why string) {
	w.mu.Lock()
	w.unfit[name] = why
	w.mu.Unlock()
	w.changed()
}

func (w *watch) judge(name, barred string) standing {
	if barred != "" {
		return standing{vip: name, reason: barred}
	}
	v := w.resolved[name]
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.translates {
		return standing{vip: name, reason: "the translation is not in the kernel yet: there was no view, or it could not be applied"}
	}
	for _, iface := range []string{v.Interface, v.ViaInterface} {
		if iface != "" && w.up[iface] != "" {
			return standing{vip: name, reason: iface + ": " + w.up[iface]}
		}
	}
	return standing{vip: name, ok: w.unfit[name] == "", reason: w.unfit[name]}
}
