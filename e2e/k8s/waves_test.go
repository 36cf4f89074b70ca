package k8s

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport/sallyport/e2e/cluster"
	"github.com/sallyport/sallyport/e2e/cluster/traffic"
	"github.com/sallyport/sallyport/e2e/lab"
	"github.com/sallyport/sallyport/steer"
)

// wavesEnv is for how long pods come and go at least, as "90s".
const wavesEnv = "E2E_WAVES"

// Each wave has so many pods on each node, selected and others. The next one comes when
// all of them have had an answer, so that no more are begun than the machine begins.
const (
	wavePods   = 6
	waveOthers = 2
)

// enough selected pods, all waves together.
const enough = 200

// narrow is the bridge plugin with so few addresses that those of deleted pods, whose
// standing was another, are soon used again.
var narrow = cluster.CNI{
	Name: "bridge, few addresses",
	Config: func(j int) string {
		cidr := lab.PodCIDR(j)
		base := strings.TrimSuffix(cidr.Addr().String(), "0")
		return strings.Replace(cluster.Bridge.Config(j), fmt.Sprintf("%q", cidr),
			fmt.Sprintf(`%q, "rangeStart": "%s10", "rangeEnd": "%s49"`, cidr, base, base), 1)
	},
	Boot: cluster.Bridge.Boot,
}

const wavePod = `apiVersion: v1
kind: Pod
metadata:
  name: %[1]s-%[2]d
  labels: {app: %[1]s, wave: "%[3]d", node: %[4]s}
  annotations: {sallyport.dev/egress-routes: %[5]s}
spec:
  nodeSelector: {kubernetes.io/hostname: %[4]s}
  terminationGracePeriodSeconds: 1
  containers:
  - {name: client, image: %[6]s, args: [client, --to, %[7]s, --connects, 500ms]}
---
`

// acts counts what the pods were seen as, and those of them whose first act nobody
// answered: the kubelet had told nobody of the pod before the pod gave it up.
type acts struct{ asVIP, asNode, late int }

// TestWaves has pods come and go, each of which connects as its first act, before anybody
// can know it, while nodes lose power. Selected ones are seen as the VIP and as nothing
// else, others never as the VIP, whatever pod had their address before.
func TestWaves(t *testing.T) {
	duration, err := time.ParseDuration(cmp.Or(os.Getenv(wavesEnv), "3m"))
	if err != nil {
		t.Fatalf("%s: %v", wavesEnv, err)
	}
	w := start(t, cluster.Options{CNI: &narrow})
	w.install(slow)
	w.apply(payments)
	w.kubectl("wait", "egressroute/payments", "--for=condition=Programmed", "--timeout", patience.String())
	w.healthy()

	var did acts
	begun, made, cuts := time.Now(), 0, 0
	for n := 1; (made < enough || time.Since(begun) < duration) && !t.Failed(); n++ {
		w.rise(n)
		made += len(w.everyNode()) * wavePods
		if n%2 == 0 {
			w.look(n, &did, w.everyNode()...)
		} else { // amid the pods' first acts: the holder's node, or another
			cut := w.holder(w.everyNode()...)
			if n%4 == 3 {
				cut = w.Lab.Others(cut)[0]
			}
			_, err := w.PowerCut(cut)
			w.must(err)
			cuts++
			w.look(n, &did, w.Lab.Others(cut)...)
			w.noLeak()
			w.must(w.PowerOn(cut))
			w.look(n, &did, cut) // the pods that it had begin anew
		}
		if n > 1 {
			w.recede(n - 1)
		}
		t.Logf("%s: wave %d, %d pods so far, %d power cuts: %+v", time.Since(begun).Round(time.Second), n, made, cuts, did)
		w.noLeak()
	}
	if did.asVIP < made {
		t.Errorf("of %d selected pods only %d were seen", made, did.asVIP)
	}
	w.healthy()
	held := uint64(0)
	for _, j := range w.everyNode() {
		s, err := w.status(lab.Agent, j)
		w.must(err)
		held += s.Dropped[steer.Unknown].Packets
	}
	if t.Logf("%d packets were kept back, not counting those before a boot", held); held == 0 {
		t.Error("no packet was kept back: the pods did not come before they were known")
	}
	w.noLeak()
	w.oneHolder()
}

// rise makes the pods of a wave.
func (w *world) rise(n int) {
	w.t.Helper()
	var pods strings.Builder
	for _, j := range w.everyNode() {
		for i := range wavePods + waveOthers {
			app, routes, to := fmt.Sprintf("wave-%d", n), "payments", partner
			if i >= wavePods {
				app, routes, to = fmt.Sprintf("other-%d", n), "null", public
			}
			fmt.Fprintf(&pods, wavePod, app, 100*j+i, n, lab.NodeName(j), routes, cluster.PodImage, to)
		}
	}
	_, err := w.API.Kubectl(w.ctx, pods.String(), "create", "-f", "-")
	w.must(err)
}

// look awaits that each of the wave's pods on the nodes has had an answer since it began,
// and looks at what it was seen as.
func (w *world) look(n int, did *acts, nodes ...int) {
	w.t.Helper()
	seen := map[string]bool{}
	w.must(lab.AwaitEvery(w.ctx, time.Second, 3*patience, func() error {
		var errs []error
		waiting := slices.DeleteFunc(w.podsOf(fmt.Sprintf("wave=%d", n)), func(p pod) bool {
			return seen[p.name] || !slices.Contains(nodes, p.node)
		})
		for i, h := range w.hearAll(waiting) {
			if h.err != nil {
				errs = append(errs, h.err)
				continue
			}
			p := waiting[i]
			seen[p.name] = true
			want := asNode(p)
			if strings.HasPrefix(p.name, "wave-") {
				want = theVIP
				did.asVIP++
			} else {
				did.asNode++
			}
			for source := range h.Sources() {
				if source != want {
					w.t.Errorf("%s, with the address %s, was seen as %s, want %s", p.name, p.addr, source, want)
				}
			}
			if h.First.Err != nil {
				did.late++
			}
		}
		if want := len(nodes) * (wavePods + waveOthers); len(seen) != want {
			errs = append(errs, fmt.Errorf("of wave %d on nodes %v, %d of %d pods have had an answer", n, nodes, len(seen), want))
		}
		return errors.Join(errs...)
	}))
}

// heard is what a pod told, or why it told nothing.
type heard struct {
	traffic.Report
	err error
}

// hearAll asks pods at a time for all of their lives: who is not there lets one wait.
func (w *world) hearAll(pods []pod) []heard {
	all := make([]heard, len(pods))
	var asking sync.WaitGroup
	for i, p := range pods {
		asking.Go(func() {
			r, err := w.hear(p, time.Time{})
			if err == nil && len(r.Sources()) == 0 {
				err = fmt.Errorf("%s on n%d has had no answer", p.name, p.node)
			}
			all[i] = heard{r, err}
		})
	}
	asking.Wait()
	return all
}

// recede deletes the pods of a wave, and does not wait.
func (w *world) recede(n int) {
	w.t.Helper()
	w.kubectl("delete", "pods", "-l", fmt.Sprintf("wave=%d", n), "--wait=false")
}
