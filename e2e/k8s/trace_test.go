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
	if said, err := ask("198.51.100.1:443"); err == nil || !strings.Contains(said, "EgressRoute payments: 198.51.100.1 is in none of its destinations 203.0.113.0/24") {
		w.t.Errorf("trace to where no route leads: %v\n%s", err, said)
	}
}
