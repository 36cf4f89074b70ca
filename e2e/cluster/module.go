package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// module is a Go module inside of this folder that pins programs of others, which
// would not go with our own dependencies.
type module struct {
	folder   string
	cgo      bool
	programs map[string]string // package by the name of the program
}

// built gives the folder with the programs of the modules, built once for each
// version, and whatever is in the further folders beside them.
func built(ctx context.Context, name string, progress io.Writer, beside string, modules ...module) (string, error) {
	parts := []string{runtime.Version(), runtime.GOARCH, beside}
	for _, m := range modules {
		parts = append(parts, fmt.Sprint(m))
		for _, file := range []string{"go.mod", "go.sum"} {
			path, err := sourceDir(m.folder, file)
			if err != nil {
				return "", err
			}
			text, err := os.ReadFile(path)
			if err != nil {
				return "", fmt.Errorf("read module %s: %w", m.folder, err)
			}
			parts = append(parts, string(text))
		}
	}
	return cached(name+"-"+hash(parts), func(dir string) error {
		for _, m := range modules {
			if err := m.build(ctx, dir, progress); err != nil {
				return err
			}
		}
		return linkAll(beside, dir)
	})
}

func (m module) build(ctx context.Context, dir string, progress io.Writer) error {
	source, err := sourceDir(m.folder)
	if err != nil {
		return err
	}
	for program, pkg := range m.programs {
		_, _ = fmt.Fprintf(progress, "building %s, once\n", program)
		w := &counter{w: progress, what: program}
		cmd := exec.CommandContext(ctx, "go", "build", "-v", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(dir, program), pkg)
		cgo := "CGO_ENABLED=0"
		if m.cgo {
			cgo = "CGO_ENABLED=1"
		}
		cmd.Dir, cmd.Env, cmd.Stderr = source, append(os.Environ(), cgo, "GOWORK=off"), w
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", program, err, w.tail())
		}
	}
	return nil
}

// source gives the folder of a dependency of the module.
func (m module) source(ctx context.Context, path string) (string, error) {
	dir, err := sourceDir(m.folder)
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", path)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "GOWORK=off")
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("find the sources of %s: %w", path, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// linkAll names the files of a folder in another one, but for those it has.
func linkAll(from, to string) error {
	if from == "" {
		return nil
	}
	files, err := os.ReadDir(from)
	if err != nil {
		return fmt.Errorf("read %s: %w", from, err)
	}
	for _, f := range files {
		if err := os.Symlink(filepath.Join(from, f.Name()), filepath.Join(to, f.Name())); err != nil && !errors.Is(err, os.ErrExist) {
			return fmt.Errorf("name the program %s: %w", f.Name(), err)
		}
	}
	return nil
}
