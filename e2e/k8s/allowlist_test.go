package k8s

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/sallyport/sallyport/e2e/lab"
)

// offered has the gateways tell what an outside firewall must admit.
const offered = "allowlist.expose=true"

// asksForTheAllowlist demands that the Service answers, and each gateway's node.
func (w *world) asksForTheAllowlist() {
	w.t.Helper()
	hosts := []string{w.kubectl("-n", namespace, "get", "service", "sallyport-allowlist", "-o", "jsonpath={.spec.clusterIP}")}
	for _, j := range w.everyNode() {
		hosts = append(hosts, w.Lab.NodeIP(j).String())
	}
	want := theVIP.String() + "\tpayments\n"
	for _, host := range hosts {
		w.await(func() error {
			ctx, cancel := context.WithTimeout(w.ctx, 5*time.Second)
			defer cancel()
			code, body, err := w.Lab.Fetch(ctx, lab.NodeName(w.everyNode()[0]), "http://"+host+":9873/allowlist")
			if err == nil && (code != http.StatusOK || string(body) != want) {
				err = fmt.Errorf("%s answers %d: %q, want %q", host, code, body, want)
			}
			return err
		})
	}
}
