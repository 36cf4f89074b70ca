package kube_test

import (
	"context"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// core is an administrator's client of pods, nodes and namespaces.
type core struct{ *rest.RESTClient }

// admin is for a server that has no pods, nodes and routes yet.
func admin(t testing.TB) core {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", server.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	config.GroupVersion, config.APIPath, config.QPS = &corev1.SchemeGroupVersion, "/api", -1
	config.ContentType = runtime.ContentTypeProtobuf
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	client, err := rest.RESTClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	c := core{client}
	// One by one: a collection of pods is deleted by namespace.
	var pods corev1.PodList
	must(t, c.Get().Resource("pods").Do(t.Context()).Into(&pods))
	for _, p := range pods.Items {
		c.remove(t, "pods", p.Namespace, p.Name)
	}
	must(t, c.Delete().Resource("nodes").Do(t.Context()).Error())
	kubectl(t, "", "delete", "egressroutes", "--all", "--wait=true")
	return c
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (c core) create(ctx context.Context, resource, namespace string, obj, into runtime.Object) error {
	return c.Post().NamespaceIfScoped(namespace, namespace != "").Resource(resource).Body(obj).Do(ctx).Into(into)
}

func (c core) status(ctx context.Context, resource, namespace, name string, obj runtime.Object) error {
	return c.Put().NamespaceIfScoped(namespace, namespace != "").Resource(resource).Name(name).SubResource("status").Body(obj).Do(ctx).Error()
}

func (c core) patch(t testing.TB, resource, namespace, name, merge string, sub ...string) {
	t.Helper()
	must(t, c.Patch(types.MergePatchType).NamespaceIfScoped(namespace, namespace != "").Resource(resource).Name(name).SubResource(sub...).
		Body([]byte(merge)).Do(t.Context()).Error())
}

// remove does not wait for a pod to end, as there is no kubelet.
func (c core) remove(t testing.TB, resource, namespace, name string) {
	t.Helper()
	now := &metav1.DeleteOptions{GracePeriodSeconds: new(int64)}
	must(t, c.Delete().NamespaceIfScoped(namespace, namespace != "").Resource(resource).Name(name).Body(now).Do(t.Context()).Error())
}

// addNode makes the Node nN with the address 10.0.0.N.
func (c core) addNode(t testing.TB, n int) {
	t.Helper()
	cidr := fmt.Sprintf("10.244.%d.0/24", n)
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("n%d", n)},
		Spec:       corev1.NodeSpec{PodCIDR: cidr, PodCIDRs: []string{cidr}},
	}
	must(t, c.create(t.Context(), "nodes", "", node, node))
	node.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: fmt.Sprintf("10.0.0.%d", n)}}
	must(t, c.status(t.Context(), "nodes", "", node.Name, node))
}

// pod is one of the default namespace.
func pod(name, node string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"},
		Spec:       corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Name: "c", Image: "i"}}},
	}
}

// addPod makes the pod and then gives it addresses, as its kubelet would.
func (c core) addPod(ctx context.Context, p *corev1.Pod, addr, host string) error {
	if err := c.create(ctx, "pods", p.Namespace, p, p); err != nil {
		return err
	}
	p.Status.Phase, p.Status.PodIP, p.Status.PodIPs = corev1.PodRunning, addr, []corev1.PodIP{{IP: addr}}
	p.Status.HostIP, p.Status.HostIPs = host, []corev1.HostIP{{IP: host}}
	return c.status(ctx, "pods", p.Namespace, p.Name, p)
}

// addRoute makes or changes an EgressRoute.
func addRoute(t testing.TB, name, vip, cidr string) {
	t.Helper()
	kubectl(t, fmt.Sprintf(`{apiVersion: sallyport.dev/v1alpha1, kind: EgressRoute, metadata: {name: %s},
spec: {vip: %s, namespaceSelector: {}, destinations: [{cidr: %s}]}}`, name, vip, cidr), "apply", "-f", "-")
}
