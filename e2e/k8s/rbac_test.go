package k8s

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/sallyport/sallyport/e2e/cluster"
	"github.com/sallyport/sallyport/e2e/lab"
)

const elsewhere = `apiVersion: v1
kind: Namespace
metadata: {name: elsewhere}
---
apiVersion: v1
kind: Pod
metadata:
  name: lonely
  namespace: elsewhere
  annotations: {sallyport.dev/egress-routes: payments}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: client, image: %s, args: [client, --to, %s, --connects, 1s]}]
`

// TestEveryCallIsAllowedAndEveryRightIsUsed exercises all that the programs do with the
// API server, and compares its audit log with the roles of the chart.
func TestEveryCallIsAllowedAndEveryRightIsUsed(t *testing.T) {
	t.Parallel()
	// As old ones are: where a watch can begin with what is there, nothing is listed.
	w := start(t, cluster.Options{APIServer: []string{"--feature-gates=WatchList=false"}})
	defer w.rights()
	const soon = "uninstall.absentAfterSeconds=5"
	w.install(soon)
	w.apply(payments)
	w.kubectl("wait", "egressroute/payments", "--for=condition=Programmed", "--timeout", patience.String())
	shop := w.deploy(app{name: "shop", to: public, routes: "payments", connects: 100 * time.Millisecond})
	w.seen(shop, asVIP)
	w.apply(fmt.Sprintf(elsewhere, cluster.PodImage, public))
	for _, ns := range []string{"default", "elsewhere"} {
		w.await(func() error {
			if w.kubectl("get", "events.events.k8s.io", "-n", ns, "--field-selector", "reportingController=sallyport.dev/agent", "-o", "name") == "" {
				return errors.New("no agent has told anything in namespace " + ns)
			}
			return nil
		})
	}
	w.helm("upgrade", soon, "logLevel=debug")
	w.seen(shop, asVIP)

	// A failover; and a node that the uninstalling has to ask for.
	cut := w.holder(1, 2, 3)
	_, err := w.PowerCut(cut)
	w.must(err)
	heir := w.holder(w.Lab.Others(cut)...)
	w.kubectl("wait", "egressroute/payments", "--for=jsonpath={.status.holder}="+lab.NodeName(heir), "--timeout", patience.String())
	w.kubectl("wait", "node", lab.NodeName(cut), "--for=condition=Ready=Unknown", "--timeout", patience.String())
	w.kubectl("delete", "egressroute", "payments")
	w.uninstall()
}
