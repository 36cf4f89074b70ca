package kube

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/flowcontrol"

	"github.com/sallyport/sallyport/api/v1alpha1"
	"github.com/sallyport/sallyport/gateway/report"
)

// Limits of writing. Each route is looked at once a second, so that it is written
// no more often, and what comes and goes in between is never written at all.
const (
	statusEvery = time.Second
	// statusChanges a second are written at most; of those that change a number of
	// pods only statusCounts, so that pods that come and go cost the API server little.
	statusChanges, statusCounts = 50, 10
	// statusTimeout of one write.
	statusTimeout = 10 * time.Second
	// statusPause after a failure is doubled up to statusPauseMost.
	statusPause, statusPauseMost = time.Second, 30 * time.Second
	// statusRefused is how long a route rests whose status the API server refuses.
	statusRefused = time.Minute
)

// Status writes what a gateway replica sees into the status of EgressRoutes, and
// tells of transitions in events.
//
// It is a goroutine of its own that asks for the newest state whenever it can write,
// so that nothing waits for it and nothing queues up while the API server is gone.
// Each write carries the resourceVersion that it was decided on: a replica that lost
// the VIP meanwhile, or that comes late, is refused by the API server and decides
// anew. (Server-side apply would not refuse it: all replicas are one field manager.)
type Status struct {
	client   rest.Interface
	routes   *table[*v1alpha1.EgressRoute]
	troubles *troubles
	events   *Events
	log      *slog.Logger

	changes, counts flowcontrol.RateLimiter
	rests           map[types.UID]time.Time // routes not to be written before
	written         map[types.UID]time.Time
	pause           time.Duration
}

// NewStatus starts nothing; Run also runs the events.
func NewStatus(c *Client, events *Events, log *slog.Logger) *Status {
	return &Status{
		client: c.Routes(), events: events, log: log, troubles: c.troubles,
		routes: newTable(v1alpha1.Kind, func() {}, func(obj any) (*v1alpha1.EgressRoute, field.ErrorList) {
			r := obj.(*v1alpha1.EgressRoute)
			r.ManagedFields = nil // often the larger part
			return r, nil
		}),
		changes: flowcontrol.NewTokenBucketRateLimiter(statusChanges, statusChanges),
		counts:  flowcontrol.NewTokenBucketRateLimiter(statusCounts, statusCounts),
		rests:   map[types.UID]time.Time{}, written: map[types.UID]time.Time{}, pause: statusPause,
	}
}

// Run writes and tells until the context ends.
func (s *Status) Run(ctx context.Context, sight func() report.Sight) {
	var others sync.WaitGroup
	defer others.Wait()
	others.Go(func() {
		follow(ctx, resource{client: s.client, plural: v1alpha1.Plural, example: &v1alpha1.EgressRoute{}}, s.routes, s.troubles)
	})
	others.Go(func() { s.events.Run(ctx) })
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		wait := statusEvery
		if err := s.round(ctx, sight); err != nil && ctx.Err() == nil {
			wait = s.pause
			s.pause = min(2*s.pause, statusPauseMost)
			s.log.Warn("the status of routes is not written, will be retried", "retry_in_ms", wait.Milliseconds(), "error", err)
		} else {
			s.pause = statusPause
		}
		timer.Reset(wait)
	}
}

// round writes what differs: transitions first, then the counts that waited longest.
// The error is one that all routes would meet.
func (s *Status) round(ctx context.Context, sight func() report.Sight) error {
	all, _, read := s.routes.values()
	if !read {
		return nil
	}
	now := time.Now()
	objects, seen := map[string]*v1alpha1.EgressRoute{}, map[types.UID]bool{}
	var routes []report.Route
	for _, r := range all {
		seen[r.UID] = true
		if now.Before(s.rests[r.UID]) {
			continue
		}
		objects[r.Name] = r
		routes = append(routes, reported(r))
	}
	for _, times := range []map[types.UID]time.Time{s.rests, s.written} {
		for uid := range times {
			if !seen[uid] {
				delete(times, uid)
			}
		}
	}
	changes := report.Changes(sight(), routes, now.UTC().Truncate(time.Second))
	slices.SortStableFunc(changes, func(a, b report.Change) int {
		switch {
		case b.Count && !a.Count:
			return -1
		case a.Count && !b.Count:
			return 1
		}
		return s.written[types.UID(a.Route.UID)].Compare(s.written[types.UID(b.Route.UID)])
	})
	for _, change := range changes {
		switch {
		case !change.Count:
			if err := s.changes.Wait(ctx); err != nil {
				return err
			}
		case !s.counts.TryAccept():
			return nil // the next round has a newer count
		}
		// A round may last: what was another's meanwhile is not ours to say any more.
		if !sight().Writes(change.Route, time.Now()) {
			continue
		}
		if err := s.write(ctx, objects[change.Route.Name], change); err != nil {
			return err
		}
	}
	return nil
}

// write one status. The error is one that the other routes would meet as well.
func (s *Status) write(ctx context.Context, r *v1alpha1.EgressRoute, change report.Change) error {
	body, err := json.Marshal(patchOf(r, change.Status))
	if err != nil {
		return fmt.Errorf("encode the status of EgressRoute %s: %w", r.Name, err)
	}
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	var after v1alpha1.EgressRoute
	err = s.client.Patch(types.MergePatchType).Resource(v1alpha1.Plural).Name(r.Name).SubResource("status").
		Body(body).Throttle(flowcontrol.NewFakeAlwaysRateLimiter()).MaxRetries(0).Do(ctx).Into(&after)
	now := time.Now()
	switch {
	case err == nil:
		s.written[r.UID] = now
		s.events.tell(change.Events, after.ResourceVersion)
	case apierrors.IsConflict(err) || apierrors.IsNotFound(err): // the watch brings what is there now
		s.log.Debug("the route changed meanwhile, its status is decided anew", "route", r.Name, "error", err)
	case apierrors.IsInvalid(err) || apierrors.IsBadRequest(err):
		s.log.Error("the API server refuses a status: are the CRD and this program of one version?", "route", r.Name, "error", err)
		s.rests[r.UID] = now.Add(statusRefused)
	case apierrors.IsForbidden(err):
		return fmt.Errorf("write the status of EgressRoute %s: %w: allow this account to patch egressroutes/status", r.Name, err)
	default:
		return fmt.Errorf("write the status of EgressRoute %s: %w", r.Name, err)
	}
	return nil
}

// reported is the route in the words of the package report.
func reported(r *v1alpha1.EgressRoute) report.Route {
	out := report.Route{
		Name: r.Name, UID: string(r.UID), Generation: r.Generation,
		Status: report.Status{Holder: r.Status.Holder, Pods: int(r.Status.Pods), ObservedGeneration: r.Status.ObservedGeneration},
	}
	out.VIP, _ = netip.ParseAddr(r.Spec.VIP)
	var wrong []string
	for _, err := range v1alpha1.Validate(r) {
		wrong = append(wrong, err.Error())
	}
	out.Invalid = strings.Join(wrong, "; ")
	for _, c := range r.Status.Conditions {
		condition := report.Condition{
			Status: report.Verdict(c.Status), Reason: c.Reason, Message: c.Message,
			Since: c.LastTransitionTime.UTC(), ObservedGeneration: c.ObservedGeneration,
		}
		switch c.Type {
		case v1alpha1.Accepted:
			out.Status.Accepted = condition
		case v1alpha1.Programmed:
			out.Status.Programmed = condition
		}
	}
	return out
}

// patch of a status, as RFC 7386 merges it: what is empty must be written too.
type patch struct {
	Metadata struct {
		UID             types.UID `json:"uid"`
		ResourceVersion string    `json:"resourceVersion"`
	} `json:"metadata"`
	Status struct {
		Conditions         []metav1.Condition `json:"conditions"`
		Holder             string             `json:"holder"`
		Pods               int                `json:"pods"`
		ObservedGeneration int64              `json:"observedGeneration"`
	} `json:"status"`
}

// patchOf keeps the conditions that others have put there.
func patchOf(r *v1alpha1.EgressRoute, to report.Status) patch {
	var p patch
	p.Metadata.UID, p.Metadata.ResourceVersion = r.UID, r.ResourceVersion
	p.Status.Holder, p.Status.Pods, p.Status.ObservedGeneration = to.Holder, to.Pods, to.ObservedGeneration
	p.Status.Conditions = slices.Clone(r.Status.Conditions)
	set := func(name string, c report.Condition) {
		condition := metav1.Condition{
			Type: name, Status: metav1.ConditionStatus(c.Status), Reason: c.Reason, Message: c.Message,
			LastTransitionTime: metav1.NewTime(c.Since), ObservedGeneration: c.ObservedGeneration,
		}
		i := slices.IndexFunc(p.Status.Conditions, func(c metav1.Condition) bool { return c.Type == name })
		if i < 0 {
			p.Status.Conditions = append(p.Status.Conditions, condition)
			return
		}
		p.Status.Conditions[i] = condition
	}
	set(v1alpha1.Accepted, to.Accepted)
	set(v1alpha1.Programmed, to.Programmed)
	slices.SortStableFunc(p.Status.Conditions, func(a, b metav1.Condition) int { return cmp.Compare(a.Type, b.Type) })
	return p
}
