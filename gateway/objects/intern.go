package objects

import (
	"maps"
	"slices"
	"strconv"

	"github.com/sallyport/sallyport/gateway"
)

// Intern keeps one copy of what thousands of pods have in common. It forgets all
// when it has grown: sharing again costs little, keeping what no pod has any more
// would cost memory for ever. It is for one goroutine.
type Intern struct {
	strings map[string]string
	labels  map[string]map[string]string
}

const internMost = 50_000

// NewIntern knows nothing yet.
func NewIntern() Intern {
	return Intern{strings: map[string]string{}, labels: map[string]map[string]string{}}
}

func (in Intern) string(s string) string {
	if shared, ok := in.strings[s]; ok {
		return shared
	}
	if len(in.strings) >= internMost {
		clear(in.strings)
	}
	in.strings[s] = s
	return s
}

// Pod makes the pod share what other pods have too.
func (in Intern) Pod(p *gateway.Pod) {
	p.Namespace, p.Node, p.Annotation = in.string(p.Namespace), in.string(p.Node), in.string(p.Annotation)
	p.Labels = in.labelSet(p.Labels)
}

func (in Intern) labelSet(labels map[string]string) map[string]string {
	if len(labels) == 0 {
		return nil
	}
	var spelled []byte
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		spelled = strconv.AppendQuote(strconv.AppendQuote(spelled, k), labels[k])
	}
	if shared, ok := in.labels[string(spelled)]; ok {
		return shared
	}
	if len(in.labels) >= internMost {
		clear(in.labels)
	}
	shared := make(map[string]string, len(labels))
	for k, v := range labels {
		shared[in.string(k)] = in.string(v)
	}
	in.labels[string(spelled)] = shared
	return shared
}
