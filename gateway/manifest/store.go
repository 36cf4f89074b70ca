package manifest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sallyport/sallyport/gateway"
)

// store holds what every file says, and last said while it was sound.
type store struct {
	files  map[string]*file
	sorted []*file     // by path
	times  map[key]int // how many objects have the key
	double int         // keys that more than one has
}

// file is what one file says.
type file struct {
	path string
	contents
}

// owner is where an object was read.
type owner struct {
	file string
	line int
	path string // as in object
}

func newStore() *store {
	return &store{files: map[string]*file{}, times: map[key]int{}}
}

// put takes what a file says now.
func (s *store) put(path string, c contents) {
	f, existed := s.files[path]
	if !existed {
		f = &file{path: path}
		s.files[path] = f
		at, _ := s.find(path)
		s.sorted = slices.Insert(s.sorted, at, f)
	}
	before := f.contents
	if c.blank && len(before.objects) > 0 {
		c.refused = []key{{}}
		c.problems = append(c.problems, gateway.Problem{
			Object: path, File: path, Reason: gateway.Unreadable,
			Message: "the file is empty, as while being written: what was read from it before stays in force; delete the file to remove its objects",
		})
	}
	if len(c.refused) > 0 {
		c.objects = append(c.objects, kept(before.objects, c)...)
	}
	s.count(before.objects, -1)
	s.count(c.objects, 1)
	f.contents = c
}

func (s *store) find(path string) (at int, found bool) {
	return slices.BinarySearchFunc(s.sorted, path, func(f *file, path string) int { return strings.Compare(f.path, path) })
}

// count objects that come or go.
func (s *store) count(objects []object, by int) {
	for _, o := range objects {
		before := s.times[o.key]
		now := before + by
		if s.times[o.key] = now; now == 0 {
			delete(s.times, o.key)
		}
		switch {
		case before == 1 && now == 2:
			s.double++
		case before == 2 && now == 1:
			s.double--
		}
	}
}

// unreadable notes that a file cannot be read and keeps what it said.
func (s *store) unreadable(path string, err error) {
	known := 0
	if f := s.files[path]; f != nil {
		known = len(f.objects)
	}
	s.put(path, contents{refused: []key{{}}, objects: nil, problems: []gateway.Problem{{
		Object: path, File: path, Reason: gateway.Unreadable,
		Message: fmt.Sprintf("%v: make it readable, or delete it; what was read from it before (%d objects) stays in force", err, known),
	}}})
}

// kept are the earlier objects that the new contents refuse, and so might still
// hold in another form.
func kept(before []object, c contents) []object {
	var out []object
	for _, o := range before {
		now := func(n object) bool { return n.key == o.key }
		if slices.ContainsFunc(c.refused, func(k key) bool { return mayBe(k, o.key) }) && !slices.ContainsFunc(c.objects, now) {
			o.line = 0
			out = append(out, o)
		}
	}
	return out
}

// mayBe says whether a refused object could be the known one: a misspelt kind or
// a missing name hide which it is.
func mayBe(refused, known key) bool {
	if refused.name == "" {
		return true
	}
	if _, ok := versions[refused.kind]; ok && refused.kind != known.kind {
		return false
	}
	return refused.name == known.name && (refused.namespace == known.namespace || refused.namespace == "" || known.namespace == "")
}

func (s *store) remove(path string) {
	f, existed := s.files[path]
	if !existed {
		return
	}
	s.count(f.objects, -1)
	delete(s.files, path)
	at, _ := s.find(path)
	s.sorted = slices.Delete(s.sorted, at, at+1)
}

// snapshot is what all files say together. Where two have the same object, the
// first path wins.
func (s *store) snapshot() gateway.Snapshot {
	var snap gateway.Snapshot
	pods := 0
	for _, f := range s.sorted {
		pods += len(f.objects)
	}
	snap.Pods = make([]gateway.Pod, 0, pods)
	owners := map[key]owner{} // of what is there more than once
	for _, f := range s.sorted {
		snap.Problems = append(snap.Problems, f.problems...)
		for _, o := range f.objects {
			if s.double > 0 && s.times[o.key] > 1 {
				if first, taken := owners[o.key]; taken {
					snap.Problems = append(snap.Problems, gateway.Problem{
						Object: o.key.String(), File: f.path, Line: o.line, Reason: gateway.Duplicate,
						Message: fmt.Sprintf("is also in %s, which is used: remove one of the two, or give it a name of its own", at(first)),
					})
					continue
				}
				owners[o.key] = owner{f.path, o.line, o.path}
			}
			switch v := o.value.(type) {
			case *gateway.Route:
				snap.Routes = append(snap.Routes, *v)
			case *gateway.Pod:
				snap.Pods = append(snap.Pods, *v)
			case *gateway.Namespace:
				snap.Namespaces = append(snap.Namespaces, *v)
			case *gateway.Node:
				snap.Nodes = append(snap.Nodes, *v)
			}
		}
	}
	snap.Problems = gateway.SortProblems(snap.Problems)
	return snap
}

// owners are where each object that is used was read.
func (s *store) owners() map[key]owner {
	owners := make(map[key]owner, len(s.times))
	for _, f := range s.sorted {
		for _, o := range f.objects {
			if _, taken := owners[o.key]; !taken {
				owners[o.key] = owner{f.path, o.line, o.path}
			}
		}
	}
	return owners
}

func at(o owner) string {
	if o.line > 0 {
		return fmt.Sprintf("%s:%d", o.file, o.line)
	}
	return o.file
}

// under are the paths of files inside the folder.
func (s *store) under(dir string) []string {
	var out []string
	for path := range s.files {
		if within(path, dir) {
			out = append(out, path)
		}
	}
	return out
}
