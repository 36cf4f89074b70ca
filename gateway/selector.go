package gateway

import (
	"maps"
	"slices"
)

// Matches says whether the labels are of those that the selector selects.
func (s Selector) Matches(labels map[string]string) bool { return compile(s).matches(labels) }

// Empty says whether the selector selects everything without looking.
func (s Selector) Empty() bool { return len(s.MatchLabels) == 0 && len(s.Expressions) == 0 }

// matcher is a Selector without maps: going through a map costs more than the
// comparison, and a Build compares often.
type matcher struct {
	labels      []label
	expressions []Requirement
}

type label struct{ key, value string }

func compile(s Selector) matcher {
	m := matcher{expressions: s.Expressions}
	for _, key := range slices.Sorted(maps.Keys(s.MatchLabels)) {
		m.labels = append(m.labels, label{key, s.MatchLabels[key]})
	}
	return m
}

func (m matcher) empty() bool { return len(m.labels) == 0 && len(m.expressions) == 0 }

func (m matcher) matches(labels map[string]string) bool {
	for _, l := range m.labels {
		if value, ok := labels[l.key]; !ok || value != l.value {
			return false
		}
	}
	for _, e := range m.expressions {
		if !e.matches(labels) {
			return false
		}
	}
	return true
}

func (r Requirement) matches(labels map[string]string) bool {
	value, ok := labels[r.Key]
	switch r.Operator {
	case In:
		return ok && slices.Contains(r.Values, value)
	case NotIn:
		return !ok || !slices.Contains(r.Values, value)
	case Exists:
		return ok
	case DoesNotExist:
		return !ok
	}
	return false
}

// exclude says whether the selectors can be seen to select nothing in common.
func exclude(a, b Selector) bool {
	for key, value := range a.MatchLabels {
		if other, ok := b.MatchLabels[key]; ok && other != value {
			return true
		}
	}
	return false
}
