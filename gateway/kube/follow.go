package kube

import (
	"context"
	"errors"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// resource is what a reflector follows.
type resource struct {
	client    rest.Interface
	plural    string
	namespace string // "": all
	fields    string // field selector
	labels    string // label selector
	example   runtime.Object
}

// follow keeps the store equal to the resource until the context ends.
func follow(ctx context.Context, r resource, store cache.ReflectorStore, troubles *troubles) {
	inner := cache.NewFilteredListWatchFromClient(r.client, r.plural, r.namespace, func(o *metav1.ListOptions) {
		o.FieldSelector, o.LabelSelector = r.fields, r.labels
	})
	key := r.plural + " " + r.namespace + " " + r.labels
	outer := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			list, err := inner.ListWithContext(ctx, o)
			if err != nil && ctx.Err() == nil && !gone(err) {
				troubles.met(key, r.plural, err)
			}
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			w, err := inner.WatchWithContext(ctx, o)
			switch {
			case err == nil:
				troubles.over(key)
			case o.SendInitialEvents != nil:
				// Whatever it is, the reflector asks for a plain list next. It must not know of a
				// refused connection or a full server: it would wait for that to pass, and
				// not hear the context end (watchList in client-go's reflector.go).
				if utilnet.IsConnectionRefused(err) || apierrors.IsTooManyRequests(err) {
					err = errors.New(err.Error())
				}
			case ctx.Err() == nil && !gone(err):
				troubles.met(key, r.plural, err)
			}
			return w, err
		},
	}
	// The library's own longest pause is a minute: new pods would wait as long for
	// their route when the API server is back.
	backoff := wait.Backoff{Duration: 500 * time.Millisecond, Factor: 2, Steps: 10, Cap: 10 * time.Second, Jitter: 0.5}
	cache.NewReflectorWithOptions(outer, r.example, store, cache.ReflectorOptions{
		Name: r.plural, TypeDescription: r.plural, Backoff: &backoff,
	}).RunWithContext(ctx)
}

// gone is the error of a watch from a point that the server no longer knows; the
// reflector reads all again.
func gone(err error) bool { return apierrors.IsResourceExpired(err) || apierrors.IsGone(err) }
