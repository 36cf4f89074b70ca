package report

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/sallyport/sallyport/gateway"
)

// Patience is how long a VIP must be without a holder before a route's status says
// so: a failover is over long before, and is told as one event, not as three.
const Patience = 5 * time.Second

// Change is a status to be written.
type Change struct {
	Route  Route
	Status Status
	Events []Event // to be told once the status is written
	// Count is true when only the number of pods differs: that can wait.
	Count bool
}

// Changes are what this replica has to write, sorted by name; now in whole seconds,
// as the API keeps them.
func Changes(s Sight, routes []Route, now time.Time) []Change {
	if !s.Applied {
		return nil
	}
	planned := make(map[string]gateway.PlannedRoute, len(s.Plan.Routes))
	for _, r := range s.Plan.Routes {
		planned[r.Name] = r
	}
	problems := map[string][]gateway.Problem{}
	for _, p := range s.Problems {
		if name, ok := strings.CutPrefix(p.Object, "EgressRoute "); ok {
			problems[name] = append(problems[name], p)
		}
	}
	var changes []Change
	for _, r := range routes {
		plan, ok := planned[r.Name]
		if r.Invalid == "" && (!ok || plan.Generation != r.Generation) {
			continue // the kernel is not there yet, or already further
		}
		if !s.Writes(r, now) {
			continue
		}
		status := s.status(r, plan.Pods, problems[r.Name])
		keepSince(&status.Accepted, r.Status.Accepted, now)
		keepSince(&status.Programmed, r.Status.Programmed, now)
		if status == r.Status {
			continue
		}
		counted := r.Status
		counted.Pods = status.Pods
		changes = append(changes, Change{Route: r, Status: status, Events: transitions(r, status), Count: counted == status})
	}
	slices.SortFunc(changes, func(a, b Change) int { return strings.Compare(a.Route.Name, b.Route.Name) })
	return changes
}

func keepSince(c *Condition, before Condition, now time.Time) {
	c.Since = now
	if before.Status == c.Status {
		c.Since = before.Since
	}
}

// Writes says whether the route's status is this replica's to write: the holder's of
// its VIP, so that there is one writer wherever there is one holder. For a VIP that
// nobody holds the holder of the lowest VIP speaks, and where there is no holder at
// all the first of the voters heard.
//
// That last one may be cut off from a holder that lives, or from another that sees
// none either. So it never denies what was found true since it lost sight of the
// holder, and says no more where somebody has said that there is none: else they would
// correct each other for as long as the partition lasts.
func (s Sight) Writes(r Route, now time.Time) bool {
	vip, known := s.vip(r.VIP)
	if known && vip.Holder != "" {
		return vip.Held
	}
	if known {
		if now.Sub(vip.Since) < Patience {
			return false
		}
		if p := r.Status.Programmed; p.Status == True && p.Since.After(vip.Since) {
			return false
		}
	}
	vips := slices.SortedFunc(slices.Values(s.VIPs), func(a, b VIP) int { return a.Addr.Compare(b.Addr) })
	for _, v := range vips {
		if v.Holder != "" {
			return v.Held
		}
	}
	p := r.Status.Programmed
	if len(vips) == 0 || now.Sub(vips[0].Since) < Patience || p.Reason == NoHolder && p.ObservedGeneration == r.Generation {
		return false
	}
	return len(vips[0].Voters) > 0 && vips[0].Voters[0] == s.Name
}

func (s Sight) vip(addr netip.Addr) (VIP, bool) {
	i := slices.IndexFunc(s.VIPs, func(v VIP) bool { return v.Addr == addr })
	if i < 0 {
		return VIP{}, false
	}
	return s.VIPs[i], true
}

func (s Sight) status(r Route, pods int, problems []gateway.Problem) Status {
	status := Status{Accepted: accepted(r, problems), ObservedGeneration: r.Generation}
	if r.Invalid == "" {
		status.Pods = pods
	}
	vip, _ := s.vip(r.VIP)
	if vip.Held {
		status.Holder = s.Node
	}
	status.Programmed = s.programmed(vip, status.Accepted)
	status.Accepted.ObservedGeneration, status.Programmed.ObservedGeneration = r.Generation, r.Generation
	return status
}

func accepted(r Route, problems []gateway.Problem) Condition {
	if r.Invalid != "" {
		return Condition{Status: False, Reason: Invalid, Message: brief(r.Invalid)}
	}
	c := Condition{Status: True, Reason: Accepted, Message: fmt.Sprintf("the spec is valid, and gateways are configured to hold %s", r.VIP)}
	var messages []string
	for _, p := range problems {
		if p.Reason == gateway.UnknownVIP {
			return Condition{Status: False, Reason: string(p.Reason), Message: p.Field + ": " + p.Message}
		}
		if len(messages) == 0 {
			c.Reason = string(p.Reason)
		}
		message := p.Message
		if p.Field != "" {
			message = p.Field + ": " + message
		}
		messages = append(messages, message)
	}
	if len(messages) > 0 {
		c.Message = brief("in force, but " + strings.Join(messages, "; "))
	}
	return c
}

func (s Sight) programmed(v VIP, accepted Condition) Condition {
	not := func(reason, format string, args ...any) Condition {
		return Condition{Status: False, Reason: reason, Message: brief(fmt.Sprintf(format, args...))}
	}
	switch {
	case accepted.Status != True:
		return not(NotAccepted, "the route is not accepted: see the condition Accepted")
	case !v.Held && v.Barred != "":
		return not(NoHolder, "no gateway holds %s, so nothing leaves by this route; gateway %s says: %s", v.Addr, s.Name, v.Barred)
	case !v.Held && len(v.Voters) < v.Quorum:
		return not(NoHolder, "no gateway holds %s, so nothing leaves by this route: gateway %s hears %d of the %d gateways that must agree; look at the others and the network between them",
			v.Addr, s.Name, len(v.Voters), v.Quorum)
	case !v.Held:
		return not(NoHolder, "no gateway holds %s, so nothing leaves by this route: look at the gateways' interfaces and logs, or run kubectl sallyport status", v.Addr)
	case s.ApplyError != "":
		return not(ApplyFailed, "node %s: %s; it is tried again", s.Node, s.ApplyError)
	case v.Unclaimed != "":
		return not(ClaimFailed, "node %s: %s", s.Node, v.Unclaimed)
	case v.Conflict != "":
		return not(VIPConflict, "%s: %s", v.Addr, v.Conflict)
	}
	return Condition{Status: True, Reason: Programmed, Message: fmt.Sprintf("node %s holds %s and translates", s.Node, v.Addr)}
}

// longest message: conditions take 32768 bytes, events' notes 1024.
const longest = 900

func brief(s string) string {
	if len(s) <= longest {
		return s
	}
	return strings.ToValidUTF8(s[:longest], "") + "..."
}
