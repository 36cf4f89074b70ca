package manifest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sallyport/sallyport/gateway"
	"github.com/sallyport/sallyport/gateway/objects"
)

// Load reads files and folders once. What is wrong with single files and objects
// is among the Snapshot's Problems; the error is for paths that cannot be read at all.
func Load(paths ...string) (gateway.Snapshot, error) {
	s, err := load(paths)
	if err != nil {
		return gateway.Snapshot{}, err
	}
	return s.snapshot(), nil
}

// Check reads files and folders once and finds everything that is wrong with the
// objects in them, each by itself and all together. Nodes and Namespaces are only
// missed where there are any: routes are often kept apart from the cluster's state.
func Check(paths []string) ([]gateway.Problem, error) {
	s, err := load(paths)
	if err != nil {
		return nil, err
	}
	snap := s.snapshot()
	_, found := gateway.Build(snap, nil)
	if len(snap.Pods) == 0 {
		found = append(found, gateway.Overlaps(snap.Routes)...)
	}
	found = slices.DeleteFunc(found, func(p gateway.Problem) bool {
		return p.Reason == gateway.UnknownNode && len(snap.Nodes) == 0 ||
			p.Reason == gateway.UnknownNamespace && len(snap.Namespaces) == 0
	})
	s.locate(found)
	return gateway.SortProblems(found), nil
}

func load(paths []string) (*store, error) {
	s, in := newStore(), objects.NewIntern()
	var errs []error
	for _, path := range paths {
		path = filepath.Clean(path)
		info, err := os.Stat(path)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		files := []string{path}
		if info.IsDir() {
			if files, err = list(path); err != nil {
				errs = append(errs, err)
			}
			if len(files) == 0 {
				errs = append(errs, fmt.Errorf("%s: no .yaml, .yml or .json file in it", path))
			}
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			s.put(file, parse(file, text, in))
		}
	}
	return s, errors.Join(errs...)
}

// list gives the manifests of a folder and its sub-folders.
func list(dir string) ([]string, error) {
	var files []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case path != dir && hidden(d.Name()) && d.IsDir():
			return fs.SkipDir
		case isManifest(d.Name()) && !isDir(path, d):
			files = append(files, path)
		}
		return nil
	})
	return files, err
}

func isDir(path string, d fs.DirEntry) bool {
	if d.Type()&fs.ModeSymlink == 0 {
		return d.IsDir()
	}
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// hidden names are editors' and tools' own: "..data" of a mounted ConfigMap,
// ".routes.yaml.swp" of an editor.
func hidden(name string) bool { return strings.HasPrefix(name, ".") }

func isManifest(name string) bool {
	switch strings.ToLower(filepath.Ext(name)) {
	case ".yaml", ".yml", ".json":
		return !hidden(name)
	}
	return false
}

// locate says in which file and line the objects of problems are.
func (s *store) locate(found []gateway.Problem) {
	owners := map[string]owner{}
	for k, o := range s.owners() {
		owners[k.String()] = o
	}
	parsed := map[string][]document{}
	for i := range found {
		p := &found[i]
		o, ok := owners[p.Object]
		if p.File != "" || !ok {
			continue
		}
		p.File, p.Line = o.file, o.line
		if o.line == 0 {
			continue
		}
		if _, ok := parsed[o.file]; !ok {
			if text, err := os.ReadFile(o.file); err == nil {
				parsed[o.file] = split(text)
			}
		}
		for _, d := range parsed[o.file] {
			if d.line == o.line {
				p.Line = d.lineOf(o.path + p.Field)
			}
		}
	}
}
