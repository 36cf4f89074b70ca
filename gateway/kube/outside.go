package kube

import (
	"context"
	"fmt"
	"log/slog"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/sallyport/sallyport/api/v1alpha1"
)

// Outside finds the API server as kubectl does: the kubeconfig file given, else those
// of KUBECONFIG, else ~/.kube/config; with a context of it, else the current one.
func Outside(kubeconfig, context, userAgent string, log *slog.Logger) (*Client, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = kubeconfig
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: context})
	config, err := loader.ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("read how to reach the cluster: %w: give --kubeconfig FILE and --context NAME", err)
	}
	return connect(config, userAgent, log)
}

// Pods with the labels of a selector, in one namespace or, with "", in all.
func (c *Client) Pods(ctx context.Context, namespace, labels string) ([]corev1.Pod, error) {
	var list corev1.PodList
	if err := get(c.core, "pods", namespace).Param("labelSelector", labels).Do(ctx).Into(&list); err != nil {
		return nil, fmt.Errorf("list pods: %w", err)
	}
	return list.Items, nil
}

// Pod gives one pod; nil when there is none.
func (c *Client) Pod(ctx context.Context, namespace, name string) (*corev1.Pod, error) {
	var pod corev1.Pod
	err := get(c.core, "pods", namespace).Name(name).Do(ctx).Into(&pod)
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil
	case apierrors.IsForbidden(err):
		return nil, fmt.Errorf("get pod %s/%s: %w: ask for the right to get pods in namespace %s", namespace, name, err, namespace)
	case err != nil:
		return nil, fmt.Errorf("get pod %s/%s: %w", namespace, name, err)
	}
	return &pod, nil
}

// EgressRoutes of the cluster.
func (c *Client) EgressRoutes(ctx context.Context) ([]v1alpha1.EgressRoute, error) {
	var list v1alpha1.EgressRouteList
	if err := get(c.routes, v1alpha1.Plural, "").Do(ctx).Into(&list); err != nil {
		return nil, fmt.Errorf("list EgressRoutes: %w", err)
	}
	return list.Items, nil
}

func get(client *rest.RESTClient, plural, namespace string) *rest.Request {
	return client.Get().NamespaceIfScoped(namespace, namespace != "").Resource(plural)
}
