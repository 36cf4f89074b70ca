package k8s

import (
	"errors"
	"fmt"
	"strings"

	"github.com/sallyport/sallyport/e2e/lab"
)

// traced demands of `kubectl sallyport trace --probe` that it finds nothing wrong on the
// way of the app's pod, and that the outside saw the VIP, whoever is asked.
func (w *world) traced(a app) {
	w.t.Helper()
	w.plugin()
	p := w.pods(a)[0].name
	ask := func(to string, args ...string) (string, error) {
		return w.API.Kubectl(w.ctx, "", append([]string{"sallyport", "trace", p, to}, args...)...)
	}
	to := fmt.Sprintf("%s:%d", a.to, lab.TCPPort)
	w.await(func() error {
		said, err := ask(to, "--probe")
		if err == nil && !strings.Contains(said, "the outside saw "+theVIP.String()+", the VIP") {
			err = errors.New("no VIP")
		}
		if err != nil {
			return fmt.Errorf("%w: kubectl sallyport trace %s %s --probe:\n%s", err, p, to, said)
		}
		return nil
	})
	// Another program's ip rule goes first on the pod's node: what is marked gets no further.
	at, rule := lab.NodeName(w.pods(a)[0].node), []string{"priority", "50", "lookup", "main"}
	for _, verb := range []string{"add", "del"} {
		_, err := w.Lab.Exec(at, "ip", append([]string{"rule", verb}, rule...)...)
		w.must(err)
		said, err := ask(to)
		names := strings.Contains(said, ", route: the kernel sends mark") && strings.Contains(said, "an ip rule of another program goes first")
		if broken := verb == "add"; names != broken || (err != nil) != broken {
			w.t.Errorf("trace after ip rule %s %s: %v\n%s", verb, strings.Join(rule, " "), err, said)
		}
	}
	if w.Options.ProxyMode == "iptables" { // neither has to do with kube-proxy: once is enough
		w.strict(at, func() (string, error) { return ask(to) })
		w.unadmitted(p, func() (string, error) { return ask("198.51.100.1:443") })
	}
	if said, err := ask("198.51.100.1:443"); err == nil || !strings.Contains(said, "EgressRoute payments: 198.51.100.1 is in none of its destinations 203.0.113.0/24") {
		w.t.Errorf("trace to where no route leads: %v\n%s", err, said)
	}
}

// strict demands that trace names a strict rp_filter on the pod's node, and finds nothing
// wrong without it. The agent puts it back from time to time, so it is set for each look.
func (w *world) strict(node string, ask func() (string, error)) {
	w.t.Helper()
	set := func(value string) {
		_, err := w.Lab.Exec(node, "sysctl", "-w", "net.ipv4.conf.sally0.rp_filter="+value)
		w.must(err)
	}
	w.await(func() error {
		set("1")
		if said, err := ask(); err == nil || !strings.Contains(said, ", tunnel: sysctl net.ipv4.conf.sally0.rp_filter is 1") {
			return fmt.Errorf("trace with a strict rp_filter (%v):\n%s", err, said)
		}
		return nil
	})
	set("2")
	w.await(func() error { return said(ask()) })
}

// unadmitted demands that trace names a route of the pod's that does not admit its namespace.
func (w *world) unadmitted(pod string, ask func() (string, error)) {
	w.t.Helper()
	annotate := func(routes string) {
		w.kubectl("annotate", "pod", pod, "--overwrite", "sallyport.dev/egress-routes="+routes)
	}
	w.apply(strings.NewReplacer("payments", "closed", "{}", "{matchLabels: {team: closed}}", "203.0.113.0", "198.51.100.0").Replace(payments))
	annotate("payments,closed")
	w.await(func() error {
		if said, err := ask(); err == nil || !strings.Contains(said, ", access: EgressRoute closed does not admit namespace default") {
			return fmt.Errorf("trace to what only a route has that does not admit the namespace (%v):\n%s", err, said)
		}
		return nil
	})
	w.kubectl("label", "namespace", "default", "team=closed")
	w.await(func() error { return said(ask()) })
	w.kubectl("label", "namespace", "default", "team-")
	annotate("payments")
	w.kubectl("delete", "egressroute", "closed")
}

func said(text string, err error) error {
	if err != nil {
		return fmt.Errorf("%w: trace says:\n%s", err, text)
	}
	return nil
}
