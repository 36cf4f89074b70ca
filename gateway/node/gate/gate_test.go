package gate

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// host has the folders of a gate, with one configuration of a CNI's.
func host(t *testing.T) Config {
	t.Helper()
	dir := t.TempDir()
	c := Config{ConfDir: filepath.Join(dir, "net.d"), BinDir: filepath.Join(dir, "bin"), RunDir: filepath.Join(dir, "run"), Program: filepath.Join(dir, "plugin")}
	for _, d := range []string{c.ConfDir, c.BinDir} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, c.Program, "one")
	write(t, filepath.Join(c.ConfDir, "10-cluster.conflist"), theirs)
	return c
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func names(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return strings.Join(all, " ")
}

// run calls what with a gate that runs; pass lets so much time pass.
func run(t *testing.T, c Config, what func(g *Gate, pass func(time.Duration))) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		g := New(c, slog.New(slog.DiscardHandler))
		done := make(chan error)
		go func() { done <- g.Run(ctx) }()
		synctest.Wait()
		what(g, func(d time.Duration) {
			time.Sleep(d)
			synctest.Wait()
		})
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func open(t *testing.T, g *Gate) {
	t.Helper()
	if err := g.Open(); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
}

func TestAGateIsInstalledWhenItIsOpenAndFollowsTheCNI(t *testing.T) {
	c := host(t)
	run(t, c, func(g *Gate, pass func(time.Duration)) {
		pass(time.Hour)
		if got := names(t, c.ConfDir) + names(t, c.BinDir); got != "10-cluster.conflist" || g.Closed() {
			t.Errorf("before it is open: %s, closed is %t", got, g.Closed())
		}
		open(t, g)
		open(t, g)
		ours := filepath.Join(c.ConfDir, File)
		if got := names(t, c.ConfDir); got != File+" 10-cluster.conflist" {
			t.Errorf("configurations: %s", got)
		}
		if info, err := os.Stat(filepath.Join(c.BinDir, Plugin)); err != nil || info.Mode() != 0o755 || read(t, filepath.Join(c.BinDir, Plugin)) != "one" {
			t.Errorf("plugin: %v, %v", info, err)
		}
		if l, found := linkIn([]byte(read(t, ours))); !found || l.Mark != filepath.Join(c.RunDir, "steering") || l.Source != "10-cluster.conflist" || Mark(l.Mark).Check() != nil {
			t.Errorf("link %+v", l)
		}

		chained := strings.Replace(read(t, ours), "\n  ],", `,{"type": "mesh"}],`, 1)
		write(t, ours, chained)
		pass(look)
		if read(t, ours) != chained {
			t.Error("what another program has chained behind ours was taken away")
		}
		write(t, filepath.Join(c.ConfDir, "10-cluster.conflist"), theirs[:50])
		pass(look)
		if problems := g.Problems(); len(problems) != 1 || !strings.Contains(problems[0].Message, "10-cluster.conflist") || read(t, ours) != chained {
			t.Errorf("half written: %v", problems)
		}
		write(t, filepath.Join(c.ConfDir, "10-cluster.conflist"), strings.Replace(theirs, "portmap", "bandwidth", 1))
		pass(2 * look)
		if got := read(t, ours); len(g.Problems()) != 0 || !strings.Contains(got, "bandwidth") || strings.Contains(got, "portmap") {
			t.Errorf("%v\n%s", g.Problems(), got)
		}
		if err := os.Remove(filepath.Join(c.BinDir, Plugin)); err != nil {
			t.Fatal(err)
		}
		pass(look)
		if got := names(t, c.BinDir); got != Plugin {
			t.Errorf("the plugin was not put back: %q", got)
		}

		if err := os.Rename(filepath.Join(c.ConfDir, "10-cluster.conflist"), filepath.Join(c.ConfDir, "10-cluster.conf")); err != nil {
			t.Fatal(err)
		}
		pass(look)
		if problems := g.Problems(); len(problems) != 1 || !strings.Contains(problems[0].Message, "make it a .conflist") || names(t, c.ConfDir) != "10-cluster.conf" {
			t.Errorf("no list: %v, %s", problems, names(t, c.ConfDir))
		}
		if err := os.Remove(filepath.Join(c.ConfDir, "10-cluster.conf")); err != nil {
			t.Fatal(err)
		}
		pass(look)
		if problems := g.Problems(); len(problems) != 1 || !strings.Contains(problems[0].Message, "agent.cni.confDir") {
			t.Errorf("no network: %v", problems)
		}
		write(t, filepath.Join(c.ConfDir, "00-00-a.conflist"), theirs)
		pass(look)
		if problems := g.Problems(); len(problems) != 1 || !strings.Contains(problems[0].Message, "rename it") {
			t.Errorf("a name before ours: %v", problems)
		}
	})
}

func TestTwoThatTakeEachOthersPlaceAreNamed(t *testing.T) {
	c := host(t)
	run(t, c, func(g *Gate, pass func(time.Duration)) {
		open(t, g)
		writes := 0
		for range 3600 {
			if err := os.Remove(filepath.Join(c.ConfDir, File)); err == nil {
				writes++
			}
			pass(time.Second)
		}
		if problems := g.Problems(); len(problems) != 1 || !strings.Contains(problems[0].Message, "cni.exclusive=false") || writes < 50 || writes > 100 {
			t.Errorf("%d times in an hour, %v", writes, problems)
		}
		pass(2 * rest)
		if problems := g.Problems(); len(problems) != 0 {
			t.Errorf("it has ended: %v", problems)
		}
	})
}

func TestAfterABootItIsClosedUntilOpened(t *testing.T) {
	c := host(t)
	run(t, c, func(g *Gate, _ func(time.Duration)) { open(t, g) })
	if New(c, slog.Default()).Closed() {
		t.Error("closed without a boot")
	}
	mark := string(markIn(c.RunDir))
	for name, boot := range map[string]func(){
		"a mark that is gone":            func() { os.Remove(mark) },
		"a mark that outlived its boot":  func() { write(t, mark, "5b1e0f9e-0000-4000-8000-000000000000\n") },
		"a mark that a power cut halved": func() { write(t, mark, "") },
	} {
		boot()
		if err := markIn(c.RunDir).Await(0); err == nil {
			t.Errorf("%s lets pods in", name)
		}
		write(t, c.Program, name)
		run(t, c, func(g *Gate, _ func(time.Duration)) {
			if !g.Closed() {
				t.Errorf("%s: not closed", name)
			}
			open(t, g)
			if g.Closed() || markIn(c.RunDir).Check() != nil {
				t.Errorf("%s: still closed", name)
			}
			if got := read(t, filepath.Join(c.BinDir, Plugin)); got != name {
				t.Errorf("the plugin is still the one of %q", got)
			}
		})
	}
}

func TestOffRemovesWhatWasInstalledAndNothingElse(t *testing.T) {
	c := host(t)
	write(t, filepath.Join(c.BinDir, "bridge"), "")
	run(t, c, func(g *Gate, _ func(time.Duration)) { open(t, g) })
	// What a power cut left of a write.
	write(t, filepath.Join(c.ConfDir, "."+File+".123"), "")
	write(t, filepath.Join(c.BinDir, "."+Plugin+".123"), "")
	c.Off = true
	run(t, c, func(g *Gate, pass func(time.Duration)) {
		open(t, g)
		pass(time.Hour)
		if len(g.Problems()) != 0 {
			t.Error(g.Problems())
		}
	})
	if got := names(t, c.ConfDir) + " " + names(t, c.BinDir); got != "10-cluster.conflist bridge" || read(t, filepath.Join(c.ConfDir, "10-cluster.conflist")) != theirs {
		t.Errorf("left: %s", got)
	}
	if err := Remove(c.ConfDir, c.BinDir, c.RunDir); err != nil {
		t.Errorf("with nothing there: %v", err)
	}
	if err := Remove("", "", c.RunDir); err != nil {
		t.Errorf("without folders: %v", err)
	}
	if _, err := os.Stat(c.RunDir); !os.IsNotExist(err) {
		t.Errorf("the mark's folder is left: %v", err)
	}
}

func TestWithoutFoldersNothingIsTouched(t *testing.T) {
	run(t, Config{RunDir: filepath.Join(t.TempDir(), "run")}, func(g *Gate, pass func(time.Duration)) {
		open(t, g)
		pass(time.Hour)
		if _, err := os.Stat(g.cfg.RunDir); !os.IsNotExist(err) || g.Closed() || len(g.Problems()) != 0 {
			t.Errorf("%v, closed is %t, %v", err, g.Closed(), g.Problems())
		}
	})
}

func TestConfigsThatAreRefused(t *testing.T) {
	for want, c := range map[string]Config{
		"belong together":       {ConfDir: "/etc/cni/net.d"},
		"--cni-bin-dir opt":     {ConfDir: "/etc/cni/net.d", BinDir: "opt"},
		"path that begins with": {ConfDir: "net.d", BinDir: "/opt"},
	} {
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", c, err, want)
		}
	}
	if err := (Config{ConfDir: "/a", BinDir: "/b"}).Validate(); err != nil {
		t.Error(err)
	}
}
