package gateway

import (
	"maps"
	"slices"
	"strconv"
	"strings"
)

// selection finds the routes of pods. Pods with the same namespace, annotation and
// values of the labels that routes look at share a class, which is judged once.
type selection struct {
	routes []*Route
	byName map[string]int
	found  *problems

	admits     []matcher        // namespaceSelector of each route
	chooses    []matcher        // podSelector of each route that has one
	choosing   map[label][]int  // routes by the first of their podSelector's labels
	choosesAny []int            // routes whose podSelector requires no label's value
	keys       []string         // every label key that a podSelector looks at
	choices    map[string]int32 // values of those keys → index into chosen
	chosen     [][]int          // routes whose podSelector matches, ascending

	namespaces  map[string]*namespace
	annotations map[string]int32 // value → index into named
	named       [][]string
	classes     map[classKey]*class
	sets        map[string]*routeSet

	values []byte // scratch
}

type namespace struct {
	Namespace
	index  int32
	known  bool
	admits []uint8 // by route: not judged yet, yes, no
}

type classKey struct{ namespace, annotation, choice int32 }

// noAnnotation is the annotation of a pod that has none: its namespace's applies.
const noAnnotation = -1

type class struct {
	*routeSet
	wrong []wrongName // only of the pod's own annotation
}

type wrongName struct {
	name   string
	reason Reason
}

// routeSet is a set of routes that some pod has, by address family of the VIP.
type routeSet struct {
	all    []int
	v4, v6 []int
}

func newSelection(routes []*Route, namespaces []Namespace, found *problems) *selection {
	s := &selection{
		routes: routes, byName: make(map[string]int, len(routes)), found: found,
		admits: make([]matcher, len(routes)), chooses: make([]matcher, len(routes)),
		choosing: map[label][]int{}, choices: map[string]int32{},
		namespaces: make(map[string]*namespace, len(namespaces)), annotations: map[string]int32{},
		classes: map[classKey]*class{}, sets: map[string]*routeSet{},
	}
	keys := map[string]bool{}
	for i, r := range routes {
		s.byName[r.Name] = i
		s.admits[i] = compile(r.NamespaceSelector)
		if r.PodSelector == nil {
			continue
		}
		m := compile(*r.PodSelector)
		s.chooses[i] = m
		for _, l := range m.labels {
			keys[l.key] = true
		}
		for _, e := range m.expressions {
			keys[e.Key] = true
		}
		if len(m.labels) > 0 {
			s.choosing[m.labels[0]] = append(s.choosing[m.labels[0]], i)
		} else {
			s.choosesAny = append(s.choosesAny, i)
		}
	}
	s.keys = slices.Sorted(maps.Keys(keys))
	for _, ns := range namespaces {
		s.addNamespace(ns)
	}
	for _, name := range slices.Sorted(maps.Keys(s.namespaces)) {
		ns := s.namespaces[name]
		if !ns.Annotated {
			continue
		}
		_, wrong := s.resolve(ns, s.annotation(ns.Annotation))
		for _, w := range wrong {
			s.report(namespaceObject(name), name, w)
		}
	}
	return s
}

func (s *selection) addNamespace(n Namespace) {
	if other := s.namespaces[n.Name]; other != nil {
		s.found.add(namespaceObject(n.Name), "", Duplicate, "there are two Namespaces %s, only one is used: remove one", n.Name)
		if other.spelled() > n.spelled() {
			other.Namespace = n
		}
		return
	}
	s.namespaces[n.Name] = &namespace{Namespace: n, index: int32(len(s.namespaces)), known: true}
}

// spelled orders two namespaces that have one name.
func (n Namespace) spelled() string {
	var b strings.Builder
	for _, key := range slices.Sorted(maps.Keys(n.Labels)) {
		b.WriteString(strconv.Quote(key) + strconv.Quote(n.Labels[key]))
	}
	return b.String() + strconv.FormatBool(n.Annotated) + n.Annotation
}

// namespace of a pod. Of one that is not in the view nothing is known, so only a
// route for every namespace admits it.
func (s *selection) namespace(name string) *namespace {
	ns := s.namespaces[name]
	if ns == nil {
		ns = &namespace{Namespace: Namespace{Name: name}, index: int32(len(s.namespaces))}
		s.namespaces[name] = ns
	}
	return ns
}

// admitted says whether the route admits the namespace's pods.
func (s *selection) admitted(ns *namespace, route int) bool {
	const yes, no = 1, 2
	if ns.admits == nil {
		ns.admits = make([]uint8, len(s.routes))
	}
	if ns.admits[route] == 0 {
		ns.admits[route] = no
		if m := s.admits[route]; m.empty() || ns.known && m.matches(ns.Labels) {
			ns.admits[route] = yes
		}
	}
	return ns.admits[route] == yes
}

// annotation gives the names in a value of the annotation an index.
func (s *selection) annotation(value string) int32 {
	i, ok := s.annotations[value]
	if !ok {
		var names []string
		for name := range strings.SplitSeq(value, ",") {
			if name = strings.TrimSpace(name); name != "" && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
		i = int32(len(s.named))
		s.named = append(s.named, names)
		s.annotations[value] = i
	}
	return i
}

// resolve gives the routes that an annotation names and that admit the namespace.
func (s *selection) resolve(ns *namespace, annotation int32) (routes []int, wrong []wrongName) {
	for _, name := range s.named[annotation] {
		i, ok := s.byName[name]
		switch {
		case !ok:
			wrong = append(wrong, wrongName{name, UnknownRoute})
		case s.admitted(ns, i):
			routes = append(routes, i)
		case !ns.known:
			wrong = append(wrong, wrongName{name, UnknownNamespace})
		default:
			wrong = append(wrong, wrongName{name, NotAllowed})
		}
	}
	return routes, wrong
}

func (s *selection) report(object, namespace string, w wrongName) {
	switch w.reason {
	case UnknownRoute:
		s.found.add(object, annotationField, w.reason, "there is no EgressRoute %s: create it, or correct the annotation", w.name)
	case UnknownNamespace:
		s.found.add(object, annotationField, w.reason,
			"Namespace %s is not in the view, so EgressRoute %s cannot admit it: add the Namespace with its labels", namespace, w.name)
	default:
		s.found.add(object, annotationField, w.reason,
			"EgressRoute %s does not admit namespace %s: label the namespace as its namespaceSelector asks, or take the name out of the annotation", w.name, namespace)
	}
}

// choice gives the routes whose podSelector matches the labels an index, found
// by the values of the labels that any podSelector looks at.
func (s *selection) choice(labels map[string]string) int32 {
	s.values = s.values[:0]
	for _, key := range s.keys {
		if value, ok := labels[key]; ok {
			s.values = append(strconv.AppendInt(s.values, int64(len(value)), 10), ':')
			s.values = append(s.values, value...)
		} else {
			s.values = append(s.values, '-')
		}
	}
	i, ok := s.choices[string(s.values)]
	if !ok {
		var routes []int
		for _, key := range s.keys {
			for _, r := range s.choosing[label{key, labels[key]}] {
				if s.chooses[r].matches(labels) {
					routes = append(routes, r)
				}
			}
		}
		for _, r := range s.choosesAny {
			if s.chooses[r].matches(labels) {
				routes = append(routes, r)
			}
		}
		slices.Sort(routes)
		i = int32(len(s.chosen))
		s.chosen = append(s.chosen, routes)
		s.choices[string(s.values)] = i
	}
	return i
}

// class of a pod.
func (s *selection) class(p *Pod) *class {
	ns := s.namespace(p.Namespace)
	key := classKey{namespace: ns.index, annotation: noAnnotation, choice: s.choice(p.Labels)}
	if p.Annotated {
		key.annotation = s.annotation(p.Annotation)
	}
	c := s.classes[key]
	if c == nil {
		c = &class{}
		var routes []int
		switch {
		case p.Annotated:
			routes, c.wrong = s.resolve(ns, key.annotation)
		case ns.Annotated:
			routes, _ = s.resolve(ns, s.annotation(ns.Annotation)) // reported with the namespace
		}
		for _, r := range s.chosen[key.choice] {
			if s.admitted(ns, r) {
				routes = append(routes, r)
			}
		}
		c.routeSet = s.set(routes)
		s.classes[key] = c
	}
	return c
}

// set shares one routeSet among all that have the same routes.
func (s *selection) set(routes []int) *routeSet {
	slices.Sort(routes)
	routes = slices.Compact(routes)
	var key []byte
	for _, r := range routes {
		key = append(strconv.AppendInt(key, int64(r), 10), ',')
	}
	set := s.sets[string(key)]
	if set == nil {
		set = &routeSet{all: routes}
		for _, r := range routes {
			if s.routes[r].VIP.Is4() {
				set.v4 = append(set.v4, r)
			} else {
				set.v6 = append(set.v6, r)
			}
		}
		s.sets[string(key)] = set
	}
	return set
}
