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

// Refused is the part of an older view that the source has, by name, in a form that
// is not valid.
func (s Snapshot) Refused(older Snapshot) Snapshot {
	refused := map[string]bool{}
	for _, p := range s.Problems {
		if p.Reason == Invalid {
			refused[p.Object] = true
		}
	}
	return Snapshot{
		Routes: only(older.Routes, func(r *Route) bool { return refused[routeObject(r.Name)] }),
		Pods:   only(older.Pods, func(p *Pod) bool { return refused[podObject(p)] }),
		Nodes:  only(older.Nodes, func(n *Node) bool { return refused[nodeObject(n.Name)] }),
	}
}

func only[T any](all []T, is func(*T) bool) []T {
	var some []T
	for i := range all {
		if is(&all[i]) {
			some = append(some, all[i])
		}
	}
	return some
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
	if len(older) == 0 {
		return now
	}
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
