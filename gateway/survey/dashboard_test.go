package survey

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// installation is what the API server says of the pods, and the servers in them.
type installation struct {
	pods []corev1.Pod

	mu      sync.Mutex
	servers map[string]string // address by pod; "": nothing listens there
}

func (i *installation) Pods(context.Context, string, string) ([]corev1.Pod, error) {
	return i.pods, nil
}

func (i *installation) Dial(ctx context.Context, _, pod string, _ int) (io.ReadWriteCloser, error) {
	i.mu.Lock()
	addr, known := i.servers[pod]
	i.mu.Unlock()
	switch {
	case !known: // its node was cut off
		<-ctx.Done()
		return nil, ctx.Err()
	case addr == "": // the kubelet takes the connection, and finds nothing
		ours, theirs := net.Pipe()
		theirs.Close()
		return ours, nil
	}
	return (&net.Dialer{}).DialContext(ctx, "tcp", addr)
}

func (i *installation) set(pod, addr string, known bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.servers[pod] = addr; !known {
		delete(i.servers, pod)
	}
}

func gatewayPod(name, node string, ready corev1.ConditionStatus) corev1.Pod {
	return corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "sallyport", Name: name, Labels: map[string]string{componentLabel: "gateway"}},
		Spec:       corev1.PodSpec{NodeName: node, Containers: []corev1.Container{{Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 9871}}}}},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: ready}}},
	}
}

// serves the dashboard, with a server in each pod, and gives its URL.
func serves(t *testing.T, d *Dashboard, i *installation) string {
	t.Helper()
	i.servers = map[string]string{}
	for _, p := range i.pods {
		web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, p.Name) }))
		t.Cleanup(web.Close)
		i.servers[p.Name] = web.Listener.Addr().String()
	}
	d.Cluster, d.Dialer, d.Config.Timeout = i, i, 200*time.Millisecond
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.Serve(ctx, listener) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return "http://" + listener.Addr().String()
}

// page is what answers within a few tries, as a browser makes them.
func page(t *testing.T, url string) string {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	var last error
	for range 10 {
		resp, err := client.Get(url)
		if err != nil {
			last = err
			continue
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err == nil && resp.StatusCode == http.StatusOK {
			return string(body)
		}
		last = errors.Join(err, errors.New(string(body)))
	}
	t.Fatal(last)
	return ""
}

func TestDashboardMovesToAnotherGateway(t *testing.T) {
	i := &installation{pods: []corev1.Pod{gatewayPod("gw-0", "n1", "False"), gatewayPod("gw-1", "n2", "True"), gatewayPod("gw-2", "n3", "True")}}
	var moved []string
	d := &Dashboard{Moved: func(m Member) { moved = append(moved, m.Pod) }}
	url := serves(t, d, i)
	if got := page(t, url); got != "gw-1" {
		t.Errorf("page of %s, want that of the first that is ready", got)
	}
	working := i.servers["gw-1"]
	i.set("gw-1", "", true)
	if got := page(t, url); got != "gw-2" {
		t.Errorf("page of %s after the program of gw-1 died", got)
	}
	i.set("gw-2", "", false)
	i.set("gw-1", working, true)
	if got := page(t, url); got != "gw-1" {
		t.Errorf("page of %s after the node of gw-2 was lost", got)
	}
	if want := []string{"gw-1", "gw-2", "gw-1"}; !slices.Equal(moved[:3], want) {
		t.Errorf("moved %v, want %v first", moved, want)
	}
}

func TestDashboardStaysWithTheGatewayThatIsAskedFor(t *testing.T) {
	i := &installation{pods: []corev1.Pod{gatewayPod("gw-0", "n1", "False"), gatewayPod("gw-1", "n2", "True")}}
	for _, name := range []string{"gw-0", "n1"} {
		d := &Dashboard{Gateway: name}
		if got := page(t, serves(t, d, i)); got != "gw-0" {
			t.Errorf("page of %s, want gw-0", got)
		}
	}
	d := &Dashboard{Gateway: "gw-7", Cluster: i, Config: Config{Timeout: time.Second}}
	if _, err := d.Pick(t.Context()); err == nil || !strings.Contains(err.Error(), "there are gw-0, gw-1") {
		t.Errorf("error %v", err)
	}
	i.pods = i.pods[:1]
	d.Gateway = ""
	if _, err := d.Pick(t.Context()); err == nil || !strings.Contains(err.Error(), "--gateway NAME") {
		t.Errorf("error %v", err)
	}
}
