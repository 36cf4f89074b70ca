package main

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/sallyport/sallyport/e2e/cluster"
	"github.com/sallyport/sallyport/e2e/lab"
)

const (
	writers        = 32 // requests at a time
	kubeNamespaces = 50
	// lifetime of a pod that comes, before it may go.
	lifetime = 5 * time.Second
	// onNodeOne is which part of the pods that come are on the node that is measured: many
	// more than its share, so that there are figures of the agent.
	onNodeOne = 5
)

// population are the pods, nodes and routes of the API server, and what happens to them.
type population struct {
	client  *rest.RESTClient
	changes *setWatch
	pods    int
	changed int           // how many changes there were
	took    time.Duration // all of them

	mu   sync.Mutex
	made []*newcomer
	gone int
}

// newcomer is a pod that came while others changed.
type newcomer struct {
	name, namespace string
	addr            netip.Addr
	node            int
	sent, answered  time.Time // the request with the address
	seen            *sighting
}

func newPopulation(api *cluster.APIServer) (*population, error) {
	config, err := clientcmd.BuildConfigFromFlags("", api.Kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("read how to reach the API server: %w", err)
	}
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	config.Dial, config.QPS = api.Dial, -1
	config.GroupVersion, config.APIPath, config.ContentType = &corev1.SchemeGroupVersion, "/api", runtime.ContentTypeProtobuf
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	client, err := rest.RESTClientFor(config)
	return &population{client: client}, err
}

// nodeName of node 1 is the lab's.
func nodeName(j int) string { return fmt.Sprintf("n%d", j) }

// podAddr is the nth address of a node's range, a /18 of its own in 10.64.0.0 and on.
func podAddr(node, nth int) netip.Addr {
	n := uint32(10<<24|64<<16) + uint32(node)<<14 + uint32(nth) + 1
	return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}

func kubeRoute(i int) string { return fmt.Sprintf("route-%d", i%kubeRoutes) }

func kubeNamespace(i int) string { return fmt.Sprintf("team-%d", i%kubeNamespaces) }

// make fills the API server.
func (p *population) make(ctx context.Context, pods int) error {
	p.pods = pods
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(writers)
	for i := range kubeNamespaces {
		g.Go(func() error {
			return p.create(ctx, "namespaces", &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: kubeNamespace(i)}})
		})
	}
	for j := 1; j <= kubeNodes; j++ {
		g.Go(func() error { return p.node(ctx, j) })
	}
	for i := range kubeRoutes {
		g.Go(func() error { return p.route(ctx, i) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	g, ctx = errgroup.WithContext(context.WithoutCancel(ctx))
	g.SetLimit(writers)
	for i := range pods {
		g.Go(func() error {
			node := 1 + i%kubeNodes
			return p.pod(ctx, fmt.Sprintf("app-%d", i), i, node, podAddr(node, i/kubeNodes), nil)
		})
	}
	return g.Wait()
}

func (p *population) create(ctx context.Context, resource string, obj metav1.Object) error {
	err := p.client.Post().NamespaceIfScoped(obj.GetNamespace(), obj.GetNamespace() != "").Resource(resource).
		Body(obj).Do(ctx).Into(obj.(runtime.Object))
	if err != nil {
		return fmt.Errorf("create %s %s: %w", resource, obj.GetName(), err)
	}
	return nil
}

func (p *population) putStatus(ctx context.Context, resource string, obj metav1.Object) error {
	err := p.client.Put().NamespaceIfScoped(obj.GetNamespace(), obj.GetNamespace() != "").Resource(resource).
		Name(obj.GetName()).SubResource("status").Body(obj).Do(ctx).Error()
	if err != nil {
		return fmt.Errorf("write the status of %s %s: %w", resource, obj.GetName(), err)
	}
	return nil
}

func (p *population) node(ctx context.Context, j int) error {
	cidr := netip.PrefixFrom(podAddr(j, -1), 18).String()
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: nodeName(j)}, Spec: corev1.NodeSpec{PodCIDR: cidr, PodCIDRs: []string{cidr}}}
	if err := p.create(ctx, "nodes", n); err != nil {
		return err
	}
	addr := lab.OutsideAddr(1)
	if j > 1 {
		addr = netip.AddrFrom4([4]byte{172, 16, byte(j >> 8), byte(j)})
	}
	n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: addr.String()}}
	return p.putStatus(ctx, "nodes", n)
}

func (p *population) route(ctx context.Context, i int) error {
	body := fmt.Sprintf(`{"apiVersion":"sallyport.dev/v1alpha1","kind":"EgressRoute","metadata":{"name":%q},"spec":{"vip":"192.0.2.%d","namespaceSelector":{},"destinations":[{"cidr":"198.18.%d.%d/32","ports":[{"protocol":"TCP","port":443}]}]}}`,
		kubeRoute(i), 10+i%kubeVIPs, i>>8, i&255)
	err := p.client.Post().AbsPath("/apis/sallyport.dev/v1alpha1/egressroutes").SetHeader("Content-Type", "application/json").Body([]byte(body)).Do(ctx).Error()
	if err != nil {
		return fmt.Errorf("create EgressRoute %s: %w", kubeRoute(i), err)
	}
	return nil
}

// pod makes a pod as a controller does, and gives it its address as its kubelet does.
func (p *population) pod(ctx context.Context, name string, i, node int, addr netip.Addr, watched *newcomer) error {
	yes := true
	app := fmt.Sprintf("app-%d", i%kubeRoutes)
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: kubeNamespace(i),
			Labels:          map[string]string{"app": app, "tier": "web", "pod-template-hash": "7c9f8d6b5"},
			Annotations:     map[string]string{lab.RoutesAnnotation: kubeRoute(i), "prometheus.io/scrape": "true"},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: app, UID: "6f1c0f0e-58a2-4a08-9a50-6d2f0c1b7a11", Controller: &yes}},
		},
		Spec: corev1.PodSpec{NodeName: nodeName(node), Containers: []corev1.Container{{Name: "c", Image: "registry.example/" + app + ":1"}}},
	}
	if err := p.create(ctx, "pods", pod); err != nil {
		return err
	}
	pod.Status.Phase, pod.Status.PodIP, pod.Status.PodIPs = corev1.PodRunning, addr.String(), []corev1.PodIP{{IP: addr.String()}}
	if watched == nil {
		return p.putStatus(ctx, "pods", pod)
	}
	watched.seen = p.changes.expect(addr)
	watched.sent = time.Now()
	err := p.putStatus(ctx, "pods", pod)
	watched.answered = time.Now()
	return err
}

// patch changes what the merge patch says of a pod that stays.
func (p *population) patch(ctx context.Context, i int, merge string, sub ...string) error {
	i %= p.pods
	err := p.client.Patch(types.MergePatchType).Namespace(kubeNamespace(i)).Resource("pods").Name(fmt.Sprintf("app-%d", i)).SubResource(sub...).
		Body([]byte(merge)).Do(ctx).Error()
	if err != nil {
		return fmt.Errorf("change pod app-%d: %w", i, err)
	}
	return nil
}
