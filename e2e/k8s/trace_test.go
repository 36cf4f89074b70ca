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
	if said, err := ask("198.51.100.1:443"); err == nil || !strings.Contains(said, "EgressRoute payments: 198.51.100.1 is in none of its destinations 203.0.113.0/24") {
		w.t.Errorf("trace to where no route leads: %v\n%s", err, said)
	}
}
