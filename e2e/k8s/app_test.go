package k8s

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport/sallyport/e2e/cluster"
	"github.com/sallyport/sallyport/e2e/cluster/traffic"
	"github.com/sallyport/sallyport/e2e/lab"
)

// app is a Deployment of clients, spread evenly over the nodes. Each connects as its
// first act, then keeps up the traffic that has a pace.
type app struct {
	name     string
	replicas int // default one for each node
	to       netip.Addr
	routes   string // the annotation of its pods, "" for none

	echo, connects, stream time.Duration
}

const appTemplate = `apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s}
spec:
  replicas: %[2]d
  strategy: {rollingUpdate: {maxSurge: 0, maxUnavailable: 100%%}}
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata:
      labels: {app: %[1]s}
      annotations: {sallyport.dev/egress-routes: %[3]s}
    spec:
      terminationGracePeriodSeconds: 1
      topologySpreadConstraints:
      - maxSkew: 1
        topologyKey: kubernetes.io/hostname
        whenUnsatisfiable: ScheduleAnyway
        labelSelector: {matchLabels: {app: %[1]s}}
      containers:
      - name: client
        image: %[4]s
        args: [client, --to, %[5]s, --echo, %[6]s, --connects, %[7]s, --stream, %[8]s]
        readinessProbe: {tcpSocket: {port: %[9]d}, periodSeconds: 1}
`

// deploy makes the app, or changes it, and waits until its pods are ready. Ready is
// who has had an answer from the partner, or has waited long enough for one.
func (w *world) deploy(a app) app {
	w.t.Helper()
	if a.replicas == 0 {
		a.replicas = w.Lab.Options.Nodes
	}
	routes := "null"
	if a.routes != "" {
		routes = strconv.Quote(a.routes)
	}
	w.apply(fmt.Sprintf(appTemplate, a.name, a.replicas, routes, cluster.PodImage, a.to, a.echo, a.connects, a.stream, traffic.Port))
	w.kubectl("rollout", "status", "deployment", a.name, "--timeout", patience.String())
	return a
}

// remove deletes the app and waits until its pods are gone.
func (w *world) remove(a app) {
	w.t.Helper()
	w.kubectl("delete", "deployment", a.name, "--cascade=foreground", "--wait")
	w.await(func() error {
		if pods := w.pods(a); len(pods) > 0 {
			return fmt.Errorf("%d pods of %s are left", len(pods), a.name)
		}
		return nil
	})
}

// pod of an app.
type pod struct {
	name string
	node int
	addr netip.Addr
}

// pods lists the app's pods that are not being deleted.
func (w *world) pods(a app) []pod {
	w.t.Helper()
	return w.podsOf("app=" + a.name)
}

// podsOf lists those with labels.
func (w *world) podsOf(labels string) []pod {
	w.t.Helper()
	var list struct {
		Items []struct {
			Metadata struct {
				Name              string
				DeletionTimestamp *time.Time
			}
			Spec   struct{ NodeName string }
			Status struct{ PodIP netip.Addr }
		}
	}
	w.must(json.Unmarshal([]byte(w.kubectl("get", "pods", "-l", labels, "-o", "json")), &list))
	var pods []pod
	for _, p := range list.Items {
		node, _ := strconv.Atoi(strings.TrimPrefix(p.Spec.NodeName, "n"))
		if p.Metadata.DeletionTimestamp == nil {
			pods = append(pods, pod{p.Metadata.Name, node, p.Status.PodIP})
		}
	}
	return pods
}

// podNamed is one as the API has it now.
func (w *world) podNamed(name string) pod {
	w.t.Helper()
	var p pod
	node, addr, _ := strings.Cut(w.kubectl("get", "pod", name, "-o", "jsonpath={.spec.nodeName} {.status.podIP}"), " ")
	_, err := fmt.Sscanf(node, "n%d", &p.node)
	w.must(err)
	p.name = name
	p.addr, _ = netip.ParseAddr(addr)
	return p
}

// hear asks a pod what it lived through since a moment; the zero time is its birth. The
// API server has no part in it.
func (w *world) hear(p pod, since time.Time) (traffic.Report, error) {
	return w.hearWithin(p, since, 5*time.Second)
}

// heardOf is all of a pod that is there: a long life takes a busy machine long to tell.
func (w *world) heardOf(p pod, since time.Time) (r traffic.Report) {
	w.t.Helper()
	w.await(func() (err error) {
		r, err = w.hearWithin(p, since, patience)
		return err
	})
	return r
}

func (w *world) hearWithin(p pod, since time.Time, timeout time.Duration) (traffic.Report, error) {
	var r traffic.Report
	if !p.addr.IsValid() {
		return r, fmt.Errorf("%s on n%d has no address yet", p.name, p.node)
	}
	ctx, cancel := context.WithTimeout(w.ctx, timeout)
	defer cancel()
	address := netip.AddrPortFrom(p.addr, traffic.Port)
	// From its own node, which reaches it whatever the CNI's addresses and tunnels are.
	code, body, err := w.Lab.Fetch(ctx, lab.NodeName(p.node),
		fmt.Sprintf("http://%s/report?since=%s", address, url.QueryEscape(since.Format(time.RFC3339Nano))))
	if err == nil && code != http.StatusOK {
		err = fmt.Errorf("report of pod %s: %d", p.name, code)
	}
	if err == nil {
		err = json.Unmarshal(body, &r)
	}
	if err == nil && r.Pod != p.name {
		err = fmt.Errorf("at the address %s, which %s had, is %s", p.addr, p.name, r.Pod)
	}
	return r, err
}

// seen awaits that the partner sees every pod of the app, on connections begun from now
// on, as what the function says of it.
func (w *world) seen(a app, as func(pod) netip.Addr) {
	w.t.Helper()
	for _, p := range w.pods(a) {
		w.seenFrom(p, as)
	}
}

// seenFrom awaits it of one pod.
func (w *world) seenFrom(p pod, as func(pod) netip.Addr) {
	w.t.Helper()
	w.await(func() error {
		since := time.Now()
		var r traffic.Report
		err := lab.AwaitEvery(w.ctx, lookEvery, 5*time.Second, func() (err error) {
			if r, err = w.hear(p, since); err == nil && len(r.Connects.Sources()) == 0 {
				err = fmt.Errorf("no connection of %s is answered", p.name)
			}
			return err
		})
		if err != nil {
			p = w.podNamed(p.name) // a boot gives it another address, and not always at once
			return err
		}
		for source := range r.Connects.Sources() {
			if source != as(p) {
				return fmt.Errorf("%s is seen as %s, want %s", p.name, source, as(p))
			}
		}
		return nil
	})
}

// refused awaits that no connection that the app's pods begin from now on is answered.
func (w *world) refused(a app) {
	w.t.Helper()
	for _, p := range w.pods(a) {
		w.await(func() error {
			since := time.Now()
			return lab.AwaitEvery(w.ctx, lookEvery, 5*time.Second, func() error {
				r, err := w.hear(p, since)
				switch {
				case err != nil:
					return err
				case len(r.Connects.Sources()) > 0:
					return fmt.Errorf("connections of %s are answered", p.name)
				case r.Connects.Lost() < 3:
					return fmt.Errorf("%s has not tried often enough", p.name)
				}
				return nil
			})
		})
	}
}

// first demands that the first act of no pod was seen as another than the function says.
// Who was not answered within lab.ConnectTimeout is told: a busy machine's kubelet had not
// named the pod's address to anybody by then, and until somebody knows it nothing passes.
// That all were given up is no such chance.
func (w *world) first(a app, as func(pod) netip.Addr) {
	w.t.Helper()
	pods := w.pods(a)
	answered := 0
	for _, p := range pods {
		r := w.heardOf(p, time.Now())
		switch {
		case r.First.Err != nil:
			w.t.Logf("the first connection of %s was given up: %v", p.name, r.First.Err)
		case r.First.Source.Addr() != as(p):
			w.t.Errorf("the first connection of %s was seen as %s, want %s", p.name, r.First.Source, as(p))
		default:
			answered++
		}
	}
	if answered == 0 {
		w.t.Errorf("of the first connections of %d pods of %s none was answered as wanted", len(pods), a.name)
	}
}

func asVIP(pod) netip.Addr    { return theVIP }
func asNode(p pod) netip.Addr { return lab.OutsideAddr(p.node) }
