package trace

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sallyport/sallyport/gateway"
)

// walk collects the steps.
type walk struct {
	Facts
	steps []Step
	name  string // of the step at hand
	where string
}

func (w *walk) add(v Verdict, found, expected, cure string) {
	w.steps = append(w.steps, Step{Name: w.name, Where: w.where, Verdict: v, Found: found, Expected: expected, Cure: cure})
}

func (w *walk) ok(format string, args ...any) { w.add(OK, fmt.Sprintf(format, args...), "", "") }

// at begins a step.
func (w *walk) at(name, where string) *walk {
	w.name, w.where = name, where
	return w
}

// Walk judges each decision in the order that a packet meets them. It ends where what
// follows has no meaning any more.
func Walk(f Facts) Report {
	w := &walk{Facts: f}
	if w.pod() && w.selection() && w.node() {
		w.gateways()
	}
	w.probe()
	return reportOf(f.Question, w.steps)
}

// pod is whether there is one that could be steered, and whether the agent knows it.
func (w *walk) pod() bool {
	name := w.Question.Namespace + "/" + w.Question.Pod
	if api := w.API; api != nil {
		w.at("pod", "API")
		switch {
		case !api.Found:
			w.add(Wrong, "there is no Pod "+name, "a running pod", "correct the name or the namespace")
			return false
		case api.Node == "" || len(api.Addrs) == 0:
			w.add(Wrong, fmt.Sprintf("Pod %s is %s and has no address yet", name, api.Phase), "a running pod", "wait for it, or see kubectl describe pod")
			return false
		}
		w.ok("Pod %s is on node %s with address %s", name, api.Node, list(api.Addrs))
	}
	if w.Agent == nil {
		w.at("agent", "")
		why := "no agent of the pod's node was asked"
		for _, s := range w.Silent {
			if s.Program == "agent" {
				w.where, why = s.Where, "it does not answer: "+s.Why
			}
		}
		w.add(Unknown, why, "an agent on the pod's node", "start it, or give its address with --http; what follows cannot be told without it")
		return false
	}
	w.at("agent's view", w.Agent.Node)
	view := w.Agent.View
	switch {
	case !view.Found:
		found := "Pod " + name + " is not in it"
		if w.Agent.Apply != "" {
			found += "; " + w.Agent.Apply
		}
		w.add(Wrong, found, "the pod", "correct the name, or see to the source that --source names; where the API has the pod, see the agent's log for why its view is old")
	case view.HostNetwork:
		w.add(Wrong, "the pod is on its node's network", "an address of its own", "take hostNetwork off the pod: what its node sends is never steered")
	case view.Ended:
		w.add(Wrong, "the pod has ended", "a running pod", "ask for a pod that runs")
	case w.Agent.Left:
		w.add(Wrong, "the interface of the pod's address is gone from the node", "an interface with the pod's address behind it", "delete the pod if it does not run any more; one whose sandbox was made anew has its address back after 10 s")
	case len(view.Addrs) == 0:
		w.add(Wrong, "the pod has no address", "an address", "wait for it, or see the CNI's log")
	case w.API != nil && !slices.Contains(w.API.Addrs, view.Addrs[0]):
		w.add(Wrong, fmt.Sprintf("the pod has address %s, in the API it has %s", list(view.Addrs), list(w.API.Addrs)), "what the API has", "see the agent's log for why its view is old")
	case view.Disputed:
		w.add(Wrong, fmt.Sprintf("another pod has address %s, too", view.Addr), "an address that is one pod's", "delete the pod that no longer runs")
	default:
		w.ok("Pod %s has address %s", name, list(view.Addrs))
		if !w.Agent.Live {
			w.add(Note, "it is the view that an earlier run saved: the source does not answer", "the source's own", "see to the API server, or the folder of --source")
		}
		return true
	}
	return false
}

// selection is which route takes the packet, and if none does, where the nearest failed.
func (w *walk) selection() bool {
	view, to := w.Agent.View, w.Question.Packet
	if view.Route != "" {
		i := slices.IndexFunc(view.Chances, func(c gateway.Chance) bool { return c.Route == view.Route })
		if i >= 0 {
			w.at("selection", w.Agent.Node).ok("EgressRoute %s selects the pod by %s", view.Route, view.Chances[i].By)
			w.at("access", w.Agent.Node).ok("EgressRoute %s admits namespace %s", view.Route, w.Question.Namespace)
		}
		w.at("destination", w.Agent.Node).ok("EgressRoute %s takes %s, by VIP %s", view.Route, to, view.VIP)
		return true
	}
	var selected, admitted []gateway.Chance
	var would []string
	for _, c := range view.Chances {
		switch {
		case c.By != "" && c.Exists && c.Admits:
			admitted = append(admitted, c)
		case c.By != "":
			selected = append(selected, c)
		default:
			would = append(would, c.Route)
		}
	}
	take := "none of the cluster"
	if len(would) > 0 {
		take = strings.Join(would, ", ")
	}
	// Of those named, the ones whose destination it is are what was meant.
	slices.SortStableFunc(selected, func(a, b gateway.Chance) int { return rank(a) - rank(b) })
	switch {
	case len(selected) > 0 && (len(admitted) == 0 || selected[0].Exists && selected[0].Refuses == ""):
		c := selected[0]
		if !c.Exists {
			w.at("selection", w.Agent.Node).add(Wrong, fmt.Sprintf("%s names EgressRoute %s, which there is not", c.By, c.Route),
				"the name of a route that there is", "create it, or correct the annotation sallyport.dev/egress-routes")
			break
		}
		w.at("selection", w.Agent.Node).ok("EgressRoute %s selects the pod by %s", c.Route, c.By)
		w.at("access", w.Agent.Node).add(Wrong, fmt.Sprintf("EgressRoute %s does not admit namespace %s", c.Route, w.Question.Namespace),
			"a namespaceSelector that matches the namespace's labels", "label the namespace as its namespaceSelector asks, or use a route that admits it")
	case len(admitted) > 0:
		var why []string
		for _, c := range admitted {
			why = append(why, fmt.Sprintf("EgressRoute %s: %s", c.Route, c.Refuses))
		}
		w.at("selection", w.Agent.Node).ok("EgressRoute %s selects the pod by %s", admitted[0].Route, admitted[0].By)
		w.at("destination", w.Agent.Node).add(Wrong, strings.Join(why, "; "), "a destination of one of the pod's routes",
			"add it to the route's destinations, or take it out of except; routes that have it: "+take)
	default:
		w.at("selection", w.Agent.Node).add(Wrong, "no route selects the pod: neither it nor its namespace has the annotation, and no podSelector matches",
			"a route of the pod's", "annotate the pod with sallyport.dev/egress-routes; routes that have the destination: "+take)
	}
	return false
}

func rank(c gateway.Chance) int {
	switch {
	case c.Exists && c.Refuses == "":
		return 0
	case !c.Exists:
		return 1
	}
	return 2
}

func (w *walk) probe() {
	p := w.Probe
	if p == nil {
		return
	}
	w.at("probe", "outside")
	vip := ""
	if w.Agent != nil && w.Agent.View.VIP.IsValid() {
		vip = w.Agent.View.VIP.String()
	}
	switch {
	case !p.Connected:
		w.add(Wrong, "the pod's connection came to nothing: "+p.Error, "a connection", "see the steps above; where all are well, the partner, or a firewall on the way, does not let "+vip+" in")
	case !p.Seen.IsValid():
		w.add(Note, "the pod is connected; the destination does not say what it sees it as", vip, "probe a host that runs sallyport reflect, or give --echo-url")
	case vip == "":
		w.add(Note, "the outside saw "+p.Seen.String(), "", "")
	case p.Seen.String() != vip:
		w.add(Wrong, "the outside saw "+p.Seen.String(), vip, "see the steps above; where all are well, look for another translation between gateway and destination")
	default:
		w.ok("the outside saw %s, the VIP", p.Seen)
	}
}

func list[T fmt.Stringer](all []T) string {
	texts := make([]string, 0, len(all))
	for _, v := range all {
		texts = append(texts, v.String())
	}
	return strings.Join(texts, ", ")
}
