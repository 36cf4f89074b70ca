// Package gate lets no pod of a node start, since a boot, before the node's rules are
// in place: what it sent would go past them. It is a plugin behind those of the node's
// CNI, in a configuration of our own that is a copy of theirs and stands before it:
// theirs is not touched, and however often their installer writes it anew, also at a
// boot before our agent runs, ours is in force.
package gate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/sallyport/sallyport/gateway"
)

// File is our configuration, of all that are in a folder the first by name: container
// runtimes take that one.
const File = "00-00-sallyport.conflist"

const (
	// look is how often the folder is looked at.
	look = 2 * time.Second
	// rest is the longest time between two looks while somebody takes ours away.
	rest = time.Minute
	// wait is how long the plugin waits for the mark. A container runtime holds a lock
	// meanwhile, and a kubelet doubts one that does not answer for half a minute.
	wait = 8 * time.Second
)

// Config of a gate.
type Config struct {
	// ConfDir and BinDir are the CNI's folders on the host. Without them there is no gate.
	ConfDir, BinDir string
	// Off takes away what an earlier run has installed.
	Off bool
	// Program is the plugin, to be copied.
	Program string
	// RunDir is where the mark is.
	RunDir string
}

// Validate joins all that is wrong.
func (c Config) Validate() error {
	var errs []error
	if (c.ConfDir == "") != (c.BinDir == "") {
		errs = append(errs, errors.New("--cni-conf-dir and --cni-bin-dir belong together: give both, or none for no gate"))
	}
	for flag, dir := range map[string]string{"--cni-conf-dir": c.ConfDir, "--cni-bin-dir": c.BinDir} {
		if dir != "" && !filepath.IsAbs(dir) {
			errs = append(errs, fmt.Errorf("%s %s: give a path that begins with /", flag, dir))
		}
	}
	return errors.Join(errs...)
}

// Gate of one node.
type Gate struct {
	cfg    Config
	mark   Mark
	log    *slog.Logger
	closed bool          // since the boot, when New looked
	opened chan struct{} // closed by Open
	copied bool          // the plugin, by this run

	mu      sync.Mutex
	problem error
}

// New starts nothing.
func New(cfg Config, log *slog.Logger) *Gate {
	g := &Gate{cfg: cfg, mark: markIn(cfg.RunDir), log: log, opened: make(chan struct{})}
	if g.none() {
		return g
	}
	text, err := os.ReadFile(g.file())
	_, ours := linkIn(text)
	g.closed = err == nil && ours && g.mark.Check() != nil
	return g
}

func (g *Gate) none() bool   { return g.cfg.ConfDir == "" }
func (g *Gate) file() string { return filepath.Join(g.cfg.ConfDir, File) }

// Closed says that no pod has come in since the boot, and none will before Open.
func (g *Gate) Closed() bool {
	select {
	case <-g.opened:
		return false
	default:
		return g.closed
	}
}

// Open lets pods in, from now on until the next boot. It is not to be called by two.
func (g *Gate) Open() error {
	select {
	case <-g.opened:
		return nil
	default:
	}
	if !g.none() {
		if err := g.mark.Set(); err != nil {
			return err
		}
	}
	close(g.opened)
	return nil
}

// Run keeps the gate installed until the context ends, and leaves it there. It is
// installed only when it is open: what never worked here shuts nobody out.
func (g *Gate) Run(ctx context.Context) error {
	if g.none() {
		return nil
	}
	if g.cfg.Off {
		g.say(Remove(g.cfg.ConfDir, g.cfg.BinDir, g.cfg.RunDir))
		return nil
	}
	select {
	case <-ctx.Done():
		return nil
	case <-g.opened:
	}
	for next, before := look, false; ctx.Err() == nil; {
		changed, err := g.install()
		if !changed || !before {
			next = look
		} else {
			next = min(2*next, rest)
			err = errors.Join(err, fmt.Errorf("%s was there and is not: another program takes it away (Cilium does, unless cni.exclusive=false)", g.file()))
		}
		before = changed
		g.say(err)
		select {
		case <-ctx.Done():
		case <-time.After(next):
		}
	}
	return nil
}

// say keeps what is wrong, and logs it once.
func (g *Gate) say(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case err != nil && (g.problem == nil || g.problem.Error() != err.Error()):
		g.log.Error("after a reboot pods will start before this node's rules are in place", "error", err)
	case err == nil && g.problem != nil:
		g.log.Info("pods will wait for this node's rules after a reboot")
	}
	g.problem = err
}

// Problems are why pods would not wait after a boot.
func (g *Gate) Problems() []gateway.Problem {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.problem == nil {
		return nil
	}
	return []gateway.Problem{{
		Object: "CNI " + g.cfg.ConfDir, Reason: gateway.Misconfigured,
		Message: "after a reboot pods will start before this node's rules are in place: " + g.problem.Error(),
	}}
}

// install brings both folders after what is wanted, and tells whether ours was not there.
func (g *Gate) install() (changed bool, err error) {
	if err := g.program(); err != nil {
		return false, err
	}
	source, err := first(g.cfg.ConfDir)
	if err == nil && filepath.Ext(source) != ".conflist" {
		err = fmt.Errorf("%s is no list of plugins, so that none can be put behind it: make it a .conflist, or set agent.cni.enabled=false", filepath.Join(g.cfg.ConfDir, source))
	}
	if err != nil {
		// Ours would keep a network in force that is no more.
		return false, errors.Join(err, remove(g.file()))
	}
	path := filepath.Join(g.cfg.ConfDir, source)
	theirs, err := os.ReadFile(path)
	if err != nil {
		return false, err
	}
	want, link, err := follow(theirs, Link{Mark: string(g.mark), Wait: wait.String(), Source: source})
	if err != nil {
		return false, fmt.Errorf("put our plugin behind those of %s: %w: correct that file", path, err)
	}
	switch have, err := os.ReadFile(g.file()); {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return false, err
	case err == nil:
		if l, ours := linkIn(have); ours && l == link {
			return false, nil
		}
	}
	if err := place(g.file(), 0o644, want); err != nil {
		return false, err
	}
	g.log.Info("pods wait for this node's rules after a reboot", "cni_configuration", g.file(), "copied_from", source)
	return true, nil
}

// program copies the plugin to where the container runtime starts it.
func (g *Gate) program() error {
	to := filepath.Join(g.cfg.BinDir, Plugin)
	if _, err := os.Stat(to); err == nil && g.copied {
		return nil
	}
	ours, err := os.ReadFile(g.cfg.Program)
	if err != nil {
		return err
	}
	if there, err := os.ReadFile(to); err != nil || !bytes.Equal(there, ours) {
		if err := place(to, 0o755, ours); err != nil {
			return err
		}
	}
	g.copied = true
	return nil
}

// first is the configuration that a container runtime would use without ours.
func first(dir string) (string, error) {
	entries, err := os.ReadDir(dir) // sorted
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		name := e.Name()
		if e.IsDir() || name == File || !slices.Contains([]string{".conf", ".conflist", ".json"}, filepath.Ext(name)) {
			continue
		}
		if name < File {
			return "", fmt.Errorf("%s comes before %s by name, so container runtimes take it and not ours: rename it", filepath.Join(dir, name), File)
		}
		return name, nil
	}
	return "", fmt.Errorf("no network configuration is in %s: give agent.cni.confDir and agent.cni.binDir as the container runtime has them, or install a CNI", dir)
}

// Remove takes a gate away, whatever version made it: first out of the way of pods.
func Remove(confDir, binDir, runDir string) error {
	var err error
	if confDir != "" {
		err = errors.Join(remove(filepath.Join(confDir, File)), remove(filepath.Join(binDir, Plugin)))
	}
	if err != nil {
		return fmt.Errorf("remove our plugin from the CNI: %w", err)
	}
	return markIn(runDir).clear()
}
