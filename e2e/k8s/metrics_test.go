package k8s

import (
	"bytes"
	"fmt"
	"net/http"
	"os/exec"
	"regexp"
	"strconv"

	"github.com/sallyport/sallyport/e2e/lab"
)

var sample = regexp.MustCompile(`(?m)^(sallyport_\w+)(?:\{.*\})? (\S+)$`)

// metrics of a program, the values of each name added up, whose form Prometheus has nothing against.
func (w *world) metrics(role lab.Role, j int) (map[string]float64, error) {
	w.t.Helper()
	code, body, err := w.Lab.Get(w.ctx, role, j, "/metrics")
	if err != nil || code != http.StatusOK {
		return nil, fmt.Errorf("metrics of the %s on n%d: %d %w", role, j, code, err)
	}
	check := exec.CommandContext(w.ctx, "promtool", "check", "metrics")
	check.Stdin = bytes.NewReader(body)
	if said, err := check.CombinedOutput(); err != nil || len(said) > 0 {
		w.t.Fatalf("promtool check metrics of the %s on n%d: %v\n%s", role, j, err, said)
	}
	sum := map[string]float64{}
	for _, m := range sample.FindAllStringSubmatch(string(body), -1) {
		value, err := strconv.ParseFloat(m[2], 64)
		w.must(err)
		sum[m[1]] += value
	}
	return sum, nil
}

// aged awaits that a program says that its view grows old.
func (w *world) aged(role lab.Role, j int) {
	w.t.Helper()
	w.await(func() error {
		is, err := w.metrics(role, j)
		if age := is["sallyport_view_age_seconds"]; err == nil && age < 3 {
			err = fmt.Errorf("the view of the %s on n%d is %v s old", role, j, age)
		}
		return err
	})
}

// counted demands that the metrics of all programs say together what is so, in a form that
// Prometheus has nothing against.
func (w *world) counted(a app) {
	w.t.Helper()
	nodes := float64(len(w.everyNode()))
	w.await(func() error {
		sum := map[string]float64{}
		for _, role := range []lab.Role{lab.Gateway, lab.Agent} {
			for _, j := range w.everyNode() {
				one, err := w.metrics(role, j)
				if err != nil {
					return err
				}
				for name, value := range one {
					sum[string(role)+" "+name] += value
				}
			}
		}
		for name, want := range map[string]float64{
			"gateway sallyport_vip_held": 1, "gateway sallyport_vip_holder": nodes, "gateway sallyport_vip_voters": nodes * nodes,
			"gateway sallyport_replication_in_step": nodes - 1, "gateway sallyport_view_live": nodes, "gateway sallyport_problems": 0,
			"agent sallyport_selected_pods": float64(a.replicas), "agent sallyport_view_live": nodes, "agent sallyport_problems": 0,
		} {
			if sum[name] != want {
				return fmt.Errorf("%s is %v of all together, want %v", name, sum[name], want)
			}
		}
		for _, name := range []string{"gateway sallyport_route_bytes_total", "gateway sallyport_vip_lease_margin_ratio_count"} {
			if sum[name] == 0 {
				return fmt.Errorf("%s is nothing", name)
			}
		}
		return nil
	})
}
