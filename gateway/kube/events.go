package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/flowcontrol"

	"github.com/sallyport/sallyport/api/v1alpha1"
	"github.com/sallyport/sallyport/gateway/report"
)

// Limits of events: a few a second, the newest if there are too many to keep.
const (
	eventsPerSecond, eventsBurst = 5, 25
	eventsKept                   = 1000
	eventTimeout                 = 10 * time.Second
	eventPause, eventPauseMost   = time.Second, 30 * time.Second
)

// Events are told to the API server, in a goroutine of their own. An event's name
// comes from what it says, so that telling it again, after a restart or when the
// answer was lost, changes nothing for as long as the API server keeps the first.
type Events struct {
	client               rest.Interface
	controller, instance string
	log                  *slog.Logger
	budget               flowcontrol.RateLimiter

	mu      sync.Mutex
	queue   []eventsv1.Event
	dropped int
	wake    chan struct{}
}

// NewEvents starts nothing. Program and node name who tells them.
func NewEvents(c *Client, program, node string, log *slog.Logger) *Events {
	return &Events{
		client: c.Routes(), controller: v1alpha1.Group + "/" + program, instance: node, log: log,
		budget: flowcontrol.NewTokenBucketRateLimiter(eventsPerSecond, eventsBurst), wake: make(chan struct{}, 1),
	}
}

// Tell takes events and returns at once.
func (e *Events) Tell(events []report.Event) { e.tell(events, "") }

// tell takes events that the occasion tells apart from others of the same words.
func (e *Events) tell(events []report.Event, occasion string) {
	if len(events) == 0 {
		return
	}
	now := metav1.NewMicroTime(time.Now())
	e.mu.Lock()
	for _, event := range events {
		e.queue = append(e.queue, e.event(event, occasion, now))
	}
	if over := len(e.queue) - eventsKept; over > 0 {
		e.queue = append([]eventsv1.Event(nil), e.queue[over:]...)
		e.dropped += over
	}
	e.mu.Unlock()
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// event of the API. Events on objects without a namespace live in "default".
func (e *Events) event(event report.Event, occasion string, now metav1.MicroTime) eventsv1.Event {
	o := event.Object
	h := fnv.New64a()
	for _, part := range []string{o.Kind, o.UID, event.Reason, event.Note, occasion} {
		fmt.Fprintf(h, "%q", part)
	}
	out := eventsv1.Event{
		TypeMeta: metav1.TypeMeta{APIVersion: eventsv1.SchemeGroupVersion.String(), Kind: "Event"},
		ObjectMeta: metav1.ObjectMeta{
			// Names have 253 characters at most, and objects may have as long ones.
			Name:      fmt.Sprintf("%.230s.%016x", o.Name, h.Sum64()),
			Namespace: o.Namespace,
		},
		EventTime: now, ReportingController: e.controller, ReportingInstance: e.instance,
		Action: event.Action, Reason: event.Reason, Note: event.Note, Type: corev1.EventTypeNormal,
		Regarding: corev1.ObjectReference{
			APIVersion: "v1", Kind: o.Kind, Namespace: o.Namespace, Name: o.Name, UID: types.UID(o.UID),
		},
	}
	if o.Kind == v1alpha1.Kind {
		out.Regarding.APIVersion = v1alpha1.GroupVersion.String()
	}
	if out.Namespace == "" {
		out.Namespace = metav1.NamespaceDefault
	}
	if event.Warning {
		out.Type = corev1.EventTypeWarning
	}
	return out
}

// Run tells until the context ends; what is not told by then never is.
func (e *Events) Run(ctx context.Context) {
	pause := eventPause
	for {
		event, ok := e.first()
		if !ok {
			select {
			case <-ctx.Done():
				return
			case <-e.wake:
			}
			continue
		}
		if e.budget.Wait(ctx) != nil {
			return
		}
		err := e.post(ctx, event)
		if err == nil {
			e.done(event)
			pause = eventPause
			continue
		}
		e.log.Warn("events are not told, will be retried", "retry_in_ms", pause.Milliseconds(), "error", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		pause = min(2*pause, eventPauseMost)
	}
}

func (e *Events) first() (eventsv1.Event, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.dropped > 0 {
		e.log.Warn("events were dropped: more happened than can be told", "events", e.dropped)
		e.dropped = 0
	}
	if len(e.queue) == 0 {
		return eventsv1.Event{}, false
	}
	return e.queue[0], true
}

// done removes the event, unless an overflow has already.
func (e *Events) done(event eventsv1.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.queue) > 0 && e.queue[0].Name == event.Name && e.queue[0].Namespace == event.Namespace {
		e.queue = e.queue[1:]
	}
}

// post one event. The error is one to try again after.
func (e *Events) post(ctx context.Context, event eventsv1.Event) error {
	body, err := json.Marshal(event)
	if err != nil {
		return fmt.Errorf("encode an event: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, eventTimeout)
	defer cancel()
	err = e.client.Post().AbsPath("/apis/events.k8s.io/v1/namespaces", event.Namespace, "events").
		SetHeader("Content-Type", "application/json").Body(body).
		Throttle(flowcontrol.NewFakeAlwaysRateLimiter()).MaxRetries(0).Do(ctx).Error()
	switch {
	case err == nil || apierrors.IsAlreadyExists(err):
		return nil
	case apierrors.IsForbidden(err):
		e.log.Error("an event is not told: allow this account to create events of events.k8s.io in the namespace, unless it is being deleted",
			"namespace", event.Namespace, "object", event.Regarding.Name, "reason", event.Reason, "error", err)
		return nil
	case apierrors.IsNotFound(err) || apierrors.IsInvalid(err) || apierrors.IsBadRequest(err):
		e.log.Warn("an event is not told", "namespace", event.Namespace, "object", event.Regarding.Name, "reason", event.Reason, "error", err)
		return nil
	}
	return fmt.Errorf("create event %s/%s: %w", event.Namespace, event.Name, err)
}
