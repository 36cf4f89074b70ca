package k8s

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sallyport/sallyport/e2e/lab"
	"github.com/sallyport/sallyport/gateway/host"
)

// faster has established connections of selected pods go beside netfilter.
const faster = "agent.fastPath=true"

// beside awaits that packets of the app's pods go beside netfilter on each node that is
// up, and on the holder if it is not a pod's own node, both ways, and that metrics say so.
func (w *world) beside(a app, down ...int) {
	w.t.Helper()
	up := slices.DeleteFunc(w.everyNode(), func(j int) bool { return slices.Contains(down, j) })
	holder := w.holder(up...)
	carried := false
	for _, p := range w.pods(a) {
		if slices.Contains(up, p.node) {
			w.rises(lab.Agent, p.node)
			carried = carried || p.node != holder
		}
	}
	if !carried {
		w.t.Fatalf("no pod of %s is on another node than the holder, n%d", a.name, holder)
	}
	w.rises(lab.Gateway, holder)
}

// rises awaits that more packets go beside netfilter in a program's care, both ways.
func (w *world) rises(role lab.Role, j int) {
	w.t.Helper()
	var before *host.FastPath
	w.await(func() error {
		s, err := w.status(role, j)
		if err != nil {
			return err
		}
		now := s.FastPath
		if now == nil || !now.On {
			return fmt.Errorf("in the care of the %s of n%d nothing goes beside netfilter: %+v, %v", role, j, now, s.Problems)
		}
		if before == nil {
			before = now
		}
		if now.PacketsOut < before.PacketsOut+100 || now.PacketsIn < before.PacketsIn+100 {
			return fmt.Errorf("in the care of the %s of n%d went beside netfilter: %+v, before %+v", role, j, *now, *before)
		}
		_, body, err := w.Lab.Get(w.ctx, role, j, "/metrics")
		if err == nil && (!strings.Contains(string(body), "\nsallyport_fast_path 1\n") || strings.Contains(string(body), "\nsallyport_fast_path_flows 0\n")) {
			err = fmt.Errorf("the %s of n%d does not count it:\n%s", role, j, body)
		}
		return err
	})
}
