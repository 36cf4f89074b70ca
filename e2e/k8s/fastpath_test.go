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
// up, both ways, and that the agents' metrics say so.
func (w *world) beside(a app, down ...int) {
	w.t.Helper()
	for _, p := range w.pods(a) {
		if slices.Contains(down, p.node) {
			continue
		}
		var before *host.FastPath
		w.await(func() error {
			s, err := w.status(lab.Agent, p.node)
			if err != nil {
				return err
			}
			now := s.FastPath
			if now == nil || !now.On {
				return fmt.Errorf("on n%d nothing goes beside netfilter: %+v, %v", p.node, now, s.Problems)
			}
			if before == nil {
				before = now
			}
			if now.PacketsOut < before.PacketsOut+100 || now.PacketsIn < before.PacketsIn+100 {
				return fmt.Errorf("on n%d went beside netfilter: %+v, before %+v", p.node, *now, *before)
			}
			_, body, err := w.Lab.Get(w.ctx, lab.Agent, p.node, "/metrics")
			if err == nil && (!strings.Contains(string(body), "\nsallyport_fast_path 1\n") || strings.Contains(string(body), "\nsallyport_fast_path_flows 0\n")) {
				err = fmt.Errorf("the agent of n%d does not count it:\n%s", p.node, body)
			}
			return err
		})
	}
}
