package k8s

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/e2e/cluster"
	"github.com/sallyport/sallyport/e2e/lab"
)

const loadBalancer = `apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: pool, namespace: metallb-system}
spec: {addresses: [192.0.2.40/32]}
---
apiVersion: metallb.io/v1beta1
kind: L2Advertisement
metadata: {name: all, namespace: metallb-system}
---
apiVersion: v1
kind: Service
metadata: {name: public}
spec: {type: LoadBalancer, selector: {app: other}, ports: [{port: 80, targetPort: 8080}]}
`

// TestMetalLB has MetalLB's speaker beside ours on every node: two memberlists, and two
// programs that answer ARP for addresses that move.
func TestMetalLB(t *testing.T) {
	t.Parallel()
	images, err := cluster.MetalLBImages(t.Context(), t.TempDir(), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	w := start(t, cluster.Options{Images: images})
	w.must(w.InstallMetalLB(w.ctx))
	// Its webhook may not be reachable yet.
	w.await(func() error {
		_, err := w.API.Kubectl(w.ctx, loadBalancer, "apply", "-f", "-")
		return err
	})
	w.neighbours(slow)

	holder := w.holder(1, 2, 3)
	w.await(w.balanced)
	var announcer int
	w.await(func() error {
		events := w.kubectl("get", "events", "--field-selector", "involvedObject.name=public,reason=nodeAssigned", "--sort-by", ".lastTimestamp", "-o", "jsonpath={range .items[*]}{.message}{\"\\n\"}{end}")
		last := events[strings.LastIndex(events, "\n")+1:]
		if _, err := fmt.Sscanf(last, "announcing from node \"n%d\"", &announcer); err != nil {
			return fmt.Errorf("MetalLB's event %q: %w", last, err)
		}
		return nil
	})
	other, bank := app{name: "other"}, app{name: "bank"}
	// The nodes of both, one after the other where they are two.
	for _, cut := range []int{announcer, holder} {
		_, err := w.PowerCut(cut)
		w.must(err)
		w.await(w.balanced)
		w.must(w.PowerOn(cut))
		w.must(w.AwaitNodes(w.ctx))
		w.back(other, bank)
		w.noLeak()
	}
	w.seen(bank, asVIP)
	w.noLeak()
	w.oneHolder()
	for _, j := range w.everyNode() {
		w.await(func() error {
			s, err := w.status(lab.Gateway, j)
			if err == nil && len(s.Problems) > 0 {
				err = fmt.Errorf("n%d beside MetalLB: %v", j, s.Problems)
			}
			return err
		})
	}
}

// balanced is satisfied once MetalLB's address answers on the partner's side.
func (w *world) balanced() error {
	ctx, cancel := context.WithTimeout(w.ctx, 2*time.Second)
	defer cancel()
	code, _, err := w.Lab.Fetch(ctx, lab.Router, "http://192.0.2.40/report")
	if err == nil && code != http.StatusOK {
		err = fmt.Errorf("MetalLB's address answers %d", code)
	}
	return err
}
