package gateway

import "slices"

// Empty tells whether the source saw nothing at all: no cluster is like that, an
// unmounted folder is.
func (s Snapshot) Empty() bool {
	return len(s.Routes) == 0 && len(s.Pods) == 0 && len(s.Namespaces) == 0 && len(s.Nodes) == 0
}

// Doubtful tells whether the source could not read everything: what is missing then
// may be in what it could not read.
func (s Snapshot) Doubtful() bool {
	return slices.ContainsFunc(s.Problems, func(p Problem) bool {
		return p.File != "" && (p.Reason == Unreadable || p.Reason == Invalid)
	})
}

// WithMissing adds the objects that only the older view has.
func (s Snapshot) WithMissing(older Snapshot) Snapshot {
	s.Routes = withMissing(s.Routes, older.Routes, func(r Route) string { return r.Name })
	s.Pods = withMissing(s.Pods, older.Pods, func(p Pod) string { return p.Namespace + "/" + p.Name })
	s.Namespaces = withMissing(s.Namespaces, older.Namespaces, func(n Namespace) string { return n.Name })
	s.Nodes = withMissing(s.Nodes, older.Nodes, func(n Node) string { return n.Name })
	return s
}

func withMissing[T any](now, older []T, key func(T) string) []T {
	have := make(map[string]bool, len(now))
	for _, o := range now {
		have[key(o)] = true
	}
	all := slices.Clone(now)
	for _, o := range older {
		if !have[key(o)] {
			all = append(all, o)
		}
	}
	return all
}
