package report

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sallyport/sallyport/gateway"
)

// Event is something that is told once on an object.
type Event struct {
	Object  Object
	Warning bool
	Reason  string
	Action  string // what was being done, in one word
	Note    string
}

// Object that an event is about. It is comparable.
type Object struct {
	Kind, Namespace, Name, UID string
}

// transitions are the events of a status that changes: one for each condition whose
// status or reason changes, and one when the VIP moves between nodes.
func transitions(r Route, to Status) []Event {
	object := Object{Kind: "EgressRoute", Name: r.Name, UID: r.UID}
	var events []Event
	condition := func(before, now Condition, plain, action string) {
		if before.Status != now.Status || before.Reason != now.Reason {
			events = append(events, Event{
				Object: object, Warning: now.Reason != plain, Reason: now.Reason, Action: action, Note: now.Message,
			})
		}
	}
	condition(r.Status.Accepted, to.Accepted, Accepted, "Validate")
	condition(r.Status.Programmed, to.Programmed, Programmed, "Program")
	if from := r.Status.Holder; from != "" && to.Holder != "" && from != to.Holder {
		events = append(events, Event{
			Object: object, Reason: HolderMoved, Action: "Hold",
			Note: fmt.Sprintf("%s moved from node %s to node %s", r.VIP, from, to.Holder),
		})
	}
	return events
}

// Pods are the events that stand on pods now: that they are steered, and the
// problems that a pod's owner can mend. Each is to be told once; see Fresh.
func Pods(pods []gateway.Pod, plan gateway.Plan, problems []gateway.Problem) []Event {
	objects := make(map[string]Object, len(pods))
	for _, p := range pods {
		objects["Pod "+p.Namespace+"/"+p.Name] = Object{Kind: "Pod", Namespace: p.Namespace, Name: p.Name, UID: p.UID}
	}
	var events []Event
	routes := map[Object][]int{}
	for _, p := range plan.Pods {
		o := Object{Kind: "Pod", Namespace: p.Namespace, Name: p.Name, UID: p.UID}
		routes[o] = append(routes[o], p.Routes...)
	}
	for o, indexes := range routes {
		slices.Sort(indexes)
		var ways []string
		for _, i := range slices.Compact(indexes) {
			ways = append(ways, fmt.Sprintf("%s (as %s)", plan.Routes[i].Name, plan.Routes[i].VIP))
		}
		events = append(events, Event{
			Object: o, Reason: Steered, Action: "Steer",
			Note: brief("new connections leave by the EgressRoutes " + strings.Join(ways, ", ")),
		})
	}
	for _, p := range problems {
		switch p.Reason {
		case gateway.UnknownRoute, gateway.NotAllowed, gateway.HostNetwork:
		default:
			continue
		}
		if o, ok := objects[p.Object]; ok {
			events = append(events, Event{Object: o, Warning: true, Reason: string(p.Reason), Action: "Steer", Note: brief(p.Field + ": " + p.Message)})
		}
	}
	slices.SortFunc(events, compareEvents)
	return slices.Compact(events)
}

// Fresh are the events that were not among those before.
func Fresh(before, now []Event) []Event {
	told := make(map[Event]bool, len(before))
	for _, e := range before {
		told[e] = true
	}
	return slices.DeleteFunc(slices.Clone(now), func(e Event) bool { return told[e] })
}

func compareEvents(a, b Event) int {
	for _, c := range [...]int{
		strings.Compare(a.Object.Namespace, b.Object.Namespace), strings.Compare(a.Object.Name, b.Object.Name),
		strings.Compare(a.Object.UID, b.Object.UID), strings.Compare(a.Reason, b.Reason),
	} {
		if c != 0 {
			return c
		}
	}
	return strings.Compare(a.Note, b.Note)
}
