package k8s

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/sallyport/sallyport/allowlist"
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
	for _, host := range hosts {
		w.allows(host, allowlist.Text, theVIP.String()+"\tpayments\n")
	}
	// The list stands in one of the formats, and the others are made of it.
	list, err := allowlist.Decode([]byte(w.allows(hosts[0], allowlist.JSON, "")))
	w.must(err)
	for _, format := range allowlist.Formats {
		text, err := allowlist.Print(list, format, allowlist.Sets{})
		w.must(err)
		if !strings.Contains(string(text), theVIP.String()) {
			w.t.Errorf("%s does not admit %s:\n%s", format, theVIP, text)
		}
		w.allows(hosts[0], format, string(text))
	}
}

// allows awaits that a host gives the text in a format, and gives it; empty: whatever it is.
func (w *world) allows(host, format, want string) (text string) {
	w.t.Helper()
	w.await(func() error {
		ctx, cancel := context.WithTimeout(w.ctx, 5*time.Second)
		defer cancel()
		code, body, err := w.Lab.Fetch(ctx, lab.NodeName(w.everyNode()[0]), "http://"+host+":9873/allowlist?format="+format)
		text = string(body)
		if err == nil && (code != http.StatusOK || want != "" && text != want) {
			err = fmt.Errorf("%s answers %d: %q, want %q", host, code, text, want)
		}
		return err
	})
	return text
}
