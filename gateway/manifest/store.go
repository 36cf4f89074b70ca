package manifest

import (
	"fmt"
	"slices"

	"github.com/sallyport/sallyport/gateway"
)

// store holds what every file says, and last said while it was sound.
type store struct {
	files  map[string]contents
	sorted []string // paths; nil when it has to be made again
	owners map[key]owner
}

// owner is where an object was read.
type owner struct {
	file string
	line int
	path string // as in object
}

func newStore() *store {
	return &store{files: map[string]contents{}, owners: map[key]owner{}}
}

// put takes what a file says now.
func (s *store) put(path string, c contents) {
	before, existed := s.files[path]
	if !existed {
		s.sorted = nil
	}
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
	s.files[path] = c
}

// unreadable notes that a file cannot be read and keeps what it said.
func (s *store) unreadable(path string, err error) {
	c := s.files[path]
	s.put(path, contents{refused: []key{{}}, objects: nil, problems: []gateway.Problem{{
		Object: path, File: path, Reason: gateway.Unreadable,
		Message: fmt.Sprintf("%v: make it readable, or delete it; what was read from it before (%d objects) stays in force", err, len(c.objects)),
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
	delete(s.files, path)
	s.sorted = nil
}

// snapshot is what all files say together. Where two have the same object, the
// first path wins.
func (s *store) snapshot() gateway.Snapshot {
	if s.sorted == nil {
		for path := range s.files {
			s.sorted = append(s.sorted, path)
		}
		slices.Sort(s.sorted)
	}
	clear(s.owners)
	var snap gateway.Snapshot
	pods := 0
	for _, c := range s.files {
		pods += len(c.objects)
	}
	snap.Pods = make([]gateway.Pod, 0, pods)
	for _, path := range s.sorted {
		c := s.files[path]
		snap.Problems = append(snap.Problems, c.problems...)
		for _, o := range c.objects {
			if first, taken := s.owners[o.key]; taken {
				snap.Problems = append(snap.Problems, gateway.Problem{
					Object: o.key.String(), File: path, Line: o.line, Reason: gateway.Duplicate,
					Message: fmt.Sprintf("is also in %s, which is used: remove one of the two, or give it a name of its own", at(first)),
				})
				continue
			}
			s.owners[o.key] = owner{path, o.line, o.path}
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
