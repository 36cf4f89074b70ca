package kube

import (
	"errors"
	"fmt"
	"log/slog"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	"github.com/sallyport/sallyport/api/v1alpha1"
)

// Client speaks to one API server.
type Client struct {
	config *rest.Config
	core   *rest.RESTClient // pods, namespaces, nodes
	routes *rest.RESTClient // EgressRoutes
	// troubles are shared by all that follow something, so that each is said once.
	troubles *troubles
}

// Connect prepares for the API server of a kubeconfig file or, without one, of the
// cluster that this pod is in. It does not talk to it yet. userAgent is how the API
// server's logs name this program.
func Connect(kubeconfig, userAgent string, log *slog.Logger) (*Client, error) {
	var config *rest.Config
	var err error
	if kubeconfig == "" {
		config, err = rest.InClusterConfig()
		if errors.Is(err, rest.ErrNotInCluster) {
			return nil, errors.New("--source kube: this is no pod of a cluster: give --kubeconfig FILE")
		}
	} else {
		config, err = clientcmd.BuildConfigFromFlags("", kubeconfig)
	}
	if err != nil {
		return nil, fmt.Errorf("--source kube: read how to reach the API server: %w", err)
	}
	return connect(config, userAgent, log)
}

func connect(config *rest.Config, userAgent string, log *slog.Logger) (*Client, error) {
	config.UserAgent = userAgent
	// A handful of watches, and one write per change of a route's status.
	config.QPS, config.Burst = 20, 40
	// The library reports every attempt of every watch; what matters is said once, by us.
	klog.SetSlogLogger(slog.New(demoted{log.Handler()}))

	c := &Client{config: config, troubles: newTroubles(config.Host, log)}
	var err error
	if c.core, err = c.group(corev1.SchemeGroupVersion, "/api", runtime.ContentTypeProtobuf); err != nil {
		return nil, err
	}
	if c.routes, err = c.group(v1alpha1.GroupVersion, "/apis", runtime.ContentTypeJSON); err != nil {
		return nil, err
	}
	return c, nil
}

// Config is for other clients of the same API server.
func (c *Client) Config() *rest.Config { return rest.CopyConfig(c.config) }

// Routes is a client of EgressRoutes.
func (c *Client) Routes() rest.Interface { return c.routes }

// known are the kinds that are read. The scheme of a complete client set would cost
// every agent megabytes for kinds that it never meets.
var known = func() *runtime.Scheme {
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(s); err != nil {
			panic(err) // a programming error: two types of one name
		}
	}
	return s
}()

func (c *Client) group(gv schema.GroupVersion, path, contentType string) (*rest.RESTClient, error) {
	config := c.Config()
	config.GroupVersion, config.APIPath = &gv, path
	config.ContentType = contentType
	config.AcceptContentTypes = contentType + "," + runtime.ContentTypeJSON
	config.NegotiatedSerializer = serializer.NewCodecFactory(known).WithoutConversion()
	client, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("prepare a client of %s: %w", gv, err)
	}
	return client, nil
}
